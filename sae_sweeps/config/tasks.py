"""The table of tasks: the kind of each task, the settings that its results depend on, and its output formats.

tasks/registry.py has the functions that run the tasks. This table is separate so that a command line can be checked
without importing torch.
"""

from dataclasses import dataclass
from typing import Literal

EXPORTS = ("sae_lens", "dictionary_learning", "sparsify", "saebench")


@dataclass(frozen=True)
class TaskEntry:
    """The facts about a task that are needed to check a command line."""

    # point: trains the points; sweep: runs on a whole sweep; export: converts the files of trained SAEs; study:
    # measures trained SAEs on a device
    kind: Literal["point", "sweep", "export", "study"]
    settings: tuple[str, ...] = ()  # for a study: top-level settings that its results depend on
    without_model: bool = False  # for a study: whether it works for SAEs of synthetic activations
    formats: tuple[str, ...] = ()  # possible values of the setting `format`, the default first


TASKS = {
    "train": TaskEntry("point"),
    "plan": TaskEntry("sweep"),
    "status": TaskEntry("sweep"),
    "remove": TaskEntry("sweep"),
    "scaling": TaskEntry("sweep"),
    "report": TaskEntry("sweep", formats=("html", "md")),
    "sync": TaskEntry("sweep"),
    "wandb_workspace": TaskEntry("sweep"),
    "export": TaskEntry("export", formats=(*EXPORTS, "neuronpedia")),
    "publish": TaskEntry("export", formats=EXPORTS),
    "stitch": TaskEntry("study", settings=("stitch", "small", "large")),
    "join": TaskEntry("study", settings=("stitch.threshold", "evaluation")),
    "match": TaskEntry("study", settings=("stitch.threshold", "stitch.tokens", "stitch.seed"), without_model=True),
    "meta_sae": TaskEntry("study", settings=("meta", "latents", "saved")),
    "meta_sizes": TaskEntry("study", settings=("meta", "latents.tokens"), without_model=True),
    "latents": TaskEntry("study", settings=("latents", "saved")),
    "evaluate": TaskEntry("study", settings=("evaluation", "saved"), without_model=True),
    "saebench": TaskEntry("study", settings=("saebench", "saved")),
    "steer": TaskEntry("study", settings=("steer", "saved")),
    "probe": TaskEntry("study", settings=("probe", "saved")),
}

POINT_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind == "point")
SWEEP_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind != "point")
STUDY_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind == "study")
EXPORT_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind == "export")
WITHOUT_MODEL = tuple(name for name, entry in TASKS.items() if entry.without_model)
