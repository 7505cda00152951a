"""The table of tasks: what each one works on, which settings its results depend on, which formats it writes.

tasks/registry.py has the functions that run them. This table is separate so that a command line can be checked without
importing what most tasks need.
"""

from dataclasses import dataclass
from typing import Literal

EXPORTS = ("sae_lens", "dictionary_learning", "sparsify", "saebench")


@dataclass(frozen=True)
class TaskEntry:
    """A task as the command line needs it."""

    # point: runs for each point; sweep: runs on a whole sweep; export: converts the files of trained SAEs;
    # study: measures trained SAEs, and needs a device
    kind: Literal["point", "sweep", "export", "study"]
    settings: tuple[str, ...] = ()  # studies: top-level settings that their results depend on
    formats: tuple[str, ...] = ()  # choices of `format`, the default first


TASKS = {
    "train": TaskEntry("point"),
    "plan": TaskEntry("sweep"),
    "status": TaskEntry("sweep"),
    "report": TaskEntry("sweep", formats=("html", "md")),
    "sync": TaskEntry("sweep"),
    "wandb_workspace": TaskEntry("sweep"),
    "export": TaskEntry("export", formats=EXPORTS),
    "publish": TaskEntry("export", formats=EXPORTS),
    "stitch": TaskEntry("study", settings=("stitch", "small", "large")),
    "meta_sae": TaskEntry("study", settings=("meta", "latents", "saved")),
    "latents": TaskEntry("study", settings=("latents", "saved")),
    "evaluate": TaskEntry("study", settings=("evaluation", "saved")),
}

POINT_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind == "point")
SWEEP_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind != "point")
STUDY_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind == "study")
EXPORT_TASKS = tuple(name for name, entry in TASKS.items() if entry.kind == "export")
