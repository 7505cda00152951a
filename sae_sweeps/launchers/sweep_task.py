"""Runs a task on a whole sweep: once per configuration for a study or export. Studies can run as Slurm jobs."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.config.commands import format_setting
from sae_sweeps.config.neuronpedia import NeuronpediaConfig
from sae_sweeps.config.tasks import EXPORT_TASKS, STUDY_TASKS
from sae_sweeps.config.validation import find_problems
from sae_sweeps.launchers.checks import distinct_studies, refuse_several_sweeps
from sae_sweeps.launchers.protocol import Launcher
from sae_sweeps.runtime.errors import NO_POINTS, ConfigError, NotRunError, RefusedError
from sae_sweeps.runtime.held import holding_sweep
from sae_sweeps.runtime.leftovers import remove_leftovers
from sae_sweeps.runtime.storage import explain_storage
from sae_sweeps.runtime.text import to_visible
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.preflight import Preflight
from sae_sweeps.tasks.registry import load_plan_studies, load_sweep_task

# settings that are checked for tasks other than studies, which read no others
SETTINGS = (
    *("name", "output_root", "format", "explorer_mib", "remove.states", "scaling.dict_sizes", "scaling.tokens"),
    *("scaling.hours", "saved", "publish.repo", "export.folder", "latents.labels"),
    *(f"neuronpedia.{field.name}" for field in fields(NeuronpediaConfig)),
)


def run_sweep_task(configs: Sequence[Config], launcher: Launcher) -> None:
    """Run the task of the configurations on the sweep. Exits with 1 if a part of the task failed.

    A study or export runs once per configuration; any other task runs once, with the first configuration.
    Raises: RefusedError if the sweep or an SAE does not exist, or if a setting cannot work.
    """
    refuse_several_sweeps(configs)
    config, task = configs[0], configs[0].task.name
    if task not in STUDY_TASKS + EXPORT_TASKS:
        configs = configs[:1]
    if bad := _find_problems(configs, launcher):
        raise RefusedError(list(dict.fromkeys(map(str, bad))))
    sweep = Sweep.from_config(config)
    if task != "status":  # which only reads
        remove_leftovers(sweep.folder)
    try:
        if task in STUDY_TASKS:
            failures = _run_studies(sweep, configs, launcher)
        else:
            run = load_sweep_task(task)
            failures = [failure for config in configs for failure in run(sweep, config)]
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
    except OSError as error:
        if (line := explain_storage(error)) is None:
            raise
        raise RefusedError([line]) from None
    except NotRunError as error:
        failures = [str(error)]
    for failure in failures:
        print(to_visible(f"{task}: {failure}"), file=sys.stderr)
    if failures:
        sys.exit(1)


def _find_problems(configs: Sequence[Config], launcher: Launcher) -> list[ConfigError]:
    """Return an error for each invalid setting, each SAE that does not exist, and a sweep that does not exist."""
    config, task = configs[0], configs[0].task.name
    find = Preflight().find_problems if task in STUDY_TASKS else find_problems
    found = [error for config in configs for error in [*launcher.find_problems(config), *find(config)]]
    bad = [error for error in found if task in STUDY_TASKS or error.setting in SETTINGS]
    reads_saes = task in STUDY_TASKS + EXPORT_TASKS
    if reads_saes and not bad:
        bad = [error for config in configs for error in _check_saes(config)]
    names_saes = reads_saes and not {config.small, config.large, config.saved} <= {None}
    return bad if bad or names_saes else list(_check_sweeps(config))


def _check_sweeps(config: Config) -> Iterator[ConfigError]:
    """Yield an error for the first sweep in the setting `name` that does not exist; nothing if all exist."""
    root = Path(config.output_root)
    names = config.name.split(",") if config.task.name == "report" else [config.name]
    for name in names:
        if not Sweep(root / name).exists():
            existing = sorted(file.parent.name for file in root.glob("*/sweep.json"))
            others = f"the sweeps there are: {', '.join(existing)}" if existing else "there are no sweeps yet"
            problem = f"no such sweep in {root}; {others}"
            yield ConfigError(
                "name", name, problem, format_setting("name", existing[0]) if existing else "train one first"
            )
            return


def _check_saes(config: Config) -> Iterator[ConfigError]:
    """Yield an error for each setting (small, large, saved) whose folder has no SAE, without importing torch."""
    from sae_sweeps.sweep.saved_saes import find_saved_sae

    for setting in ("small", "large", "saved"):
        if (path := getattr(config, setting)) is not None:
            try:
                find_saved_sae(path, setting, config)
            except ConfigError as error:
                yield error


def _run_studies(sweep: Sweep, configs: Sequence[Config], launcher: Launcher) -> list[str]:
    """Run or submit the studies of each configuration. Returns one message per study that failed.

    The list is empty if the studies were submitted as jobs.
    """
    task = configs[0].task.name
    configs = distinct_studies(configs, task)
    sweep.update(lambda known: None)  # creates the sweep's folder, which is new if all SAEs come from elsewhere
    if not launcher.is_local:
        _submit(task, sweep, configs, launcher)
        return []
    run = load_sweep_task(task)
    from sae_sweeps.tasks.report import refresh

    with holding_sweep(sweep.folder):
        failures = [failure for config in configs for failure in run(sweep, config)]
        refresh(sweep, configs[0])
    return failures


def _submit(task: str, sweep: Sweep, configs: Sequence[Config], launcher: Launcher) -> None:
    """Submit the unfinished studies of the configurations as jobs. Raises: NotRunError if there are no studies."""
    plan_studies = load_plan_studies(task)
    planned = [plan_studies(sweep, config) for config in configs]
    if not any(found for found, _ in planned):
        raise NotRunError(planned[0][1] or NO_POINTS)
    unfinished = [
        config
        for config, (found, _) in zip(configs, planned, strict=True)
        if not all(study.is_done() for study in found)
    ]
    if unfinished:
        launcher.submit_task(sweep, task, unfinished)
    else:
        print(f"{task}: all studies are done, so no job was submitted")
