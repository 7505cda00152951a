"""Checks the points, the launcher and the settings that must be equal in all points, before anything runs."""

import json
import logging
from collections.abc import Sequence

from sae_sweeps.config import Config
from sae_sweeps.config.commands import format_command
from sae_sweeps.config.identity import select_study_settings
from sae_sweeps.launchers.protocol import Launcher
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import ConfigError, RefusedError
from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.halving import find_halving_problems
from sae_sweeps.sweep.objective import find_objective_problems
from sae_sweeps.sweep.preflight import Preflight

log = logging.getLogger(__name__)

SHOWN = 3  # points that a message names


def refuse_invalid(points: Sequence[tuple[str, Config]], launcher: Launcher) -> None:
    """Check the settings of the launcher and of every point: (folder name, configuration).

    Raises: RefusedError if a point cannot run. The error lists each problem once, with the names of the points.
    """
    refuse_several_sweeps([config for _, config in points])
    preflight = Preflight()
    lines: dict[str, list[str]] = {}
    for folder, config in points:
        found = [*launcher.find_problems(config), *preflight.find_problems(config)]
        found += find_objective_problems(config) or find_halving_problems(config)
        for error in found:
            lines.setdefault(str(error), []).append(folder)
    if not lines:
        if not launcher.is_local or points[0][1].task.name == "plan":
            return  # a device can only be checked on the machine that has it, and a plan needs none
        for device, precision in {(config.device, config.training.precision) for _, config in points}:
            _require_device(device, precision)
        return
    if len(points) == 1:
        raise RefusedError(list(lines))
    bad = {folder for folders in lines.values() for folder in folders}
    refusals = [f"{len(bad)} of {len(points)} points have invalid settings, so nothing was run"]
    for line, folders in lines.items():
        everywhere = len(folders) == len(points)
        refusals.append(f"{line} (in {'every point' if everywhere else ', '.join(folders)})")
    raise RefusedError(refusals)


def refuse_several_sweeps(configs: Sequence[Config]) -> None:
    """Check that all configurations are of the same sweep. Raises: RefusedError if there are several sweeps."""
    sweeps = sorted({f"{config.output_root}/{config.name}" for config in configs})
    if len(sweeps) > 1:
        problem = "must name one sweep, because a command can run the points of only one"
        fix = "give one name, or run one command per sweep"
        raise RefusedError([str(ConfigError("name", ", ".join(sweeps), problem, fix))])


def refuse_several_tasks(configs: Sequence[Config]) -> None:
    """Check that the configurations name one task. Raises: RefusedError if they name several."""
    tasks = list(dict.fromkeys(config.task.name for config in configs))
    if len(tasks) > 1:
        problem = "a command runs one task"
        raise RefusedError([str(ConfigError("task", ",".join(tasks), problem, f"task={tasks[0]}, then the others"))])


def refuse_running(sweep: Sweep, points: Sequence[Point]) -> None:
    """Look for points that another process trains, before a language model is loaded for them.

    If there are other points to train, the points are only named in a warning: a point waits for its lock, then fails.
    Raises: RefusedError if another process trains all points that are not done.
    """
    todo = [point for point in points if not point_state.is_done(point.folder)]
    running = [point for point in todo if point_state.is_locked(point.folder)]
    if not running:
        return
    notes = [point_state.read_note(point.folder) for point in running]
    owners = sorted({str(note.owner) for note in notes if note is not None}) or ["another process"]
    names = ", ".join(point.name for point in running[:SHOWN]) + ", ..." * (len(running) > SHOWN)
    what = f"{pluralize(len(running), 'point')} of it ({names})"
    problem = f"is running: {' and '.join(owners)} is training {what}"
    status = format_command("status", sweep.name, sweep.folder.parent)
    fix = f"give another name, stop that process, or wait until it ends; to see its progress: {status}"
    if len(running) == len(todo):
        raise RefusedError([str(ConfigError("name", sweep.name, problem, fix))])
    log.warning("name=%s %s; the other points are trained now", sweep.name, problem)


def distinct_studies(configs: Sequence[Config], *tasks: str) -> list[Config]:
    """Return the configurations without duplicates: the first of all that have equal settings for these tasks."""
    settings = [json.dumps([select_study_settings(config, task) for task in tasks]) for config in configs]
    return list(dict(zip(reversed(settings), reversed(configs), strict=True)).values())[::-1]


def _require_device(device: str, precision: str) -> None:
    """Check that the device exists and supports the precision. Call this after all other checks: it imports torch.

    Raises: RefusedError if the device does not exist or does not support the precision.
    """
    from sae_sweeps.runtime.devices import choose_device, require_precision

    try:
        require_precision(precision, choose_device(device))
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
