"""Task `remove`: removes points that never finished, such as failed ones that the command no longer names.

Without remove.dry_run=false it only lists them. A point that is done, running or queued is never removed.
"""

import shutil
from typing import Any

from filelock import FileLock, Timeout

from sae_sweeps.config import Config
from sae_sweeps.config.commands import format_command, format_setting
from sae_sweeps.config.studies import RemoveConfig
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.sweep_state import read_states


def run(sweep: Sweep, config: Config) -> list[str]:
    """List the points whose state is in remove.states, or remove them. Returns one sentence per point that stays.

    Nothing is removed if Slurm does not answer, because a point could be queued or running then.
    """
    seen = read_states(sweep)
    if seen.slurm_error is not None:
        return [str(seen.slurm_error)]
    states = {name: state for name, state in seen.points.items() if state.state in config.remove.states}
    if not states:
        _print(f"sweep {sweep.name} has no points that are {' or '.join(config.remove.states)}")
        return []
    _print(f"{pluralize(len(states), 'point')} of sweep {sweep.name}{' would be removed' * config.remove.dry_run}:")
    for name, state in states.items():
        _print(f"  {name}: {state.state}" + f": {state.reason}" * bool(state.reason))
    if config.remove.dry_run:
        words = [format_command("remove", sweep.name, sweep.folder.parent), "remove.dry_run=false"]
        if config.remove.states != RemoveConfig().states:
            words.append(format_setting("remove.states", config.remove.states))
        _print(f"to remove them, with their checkpoints and logs: {' '.join(words)}")
        return []
    failures = {name: _remove(sweep, name) for name in states}
    removed = [name for name, failure in failures.items() if failure is None]

    def change(content: dict[str, Any]) -> None:
        for name in removed:
            content["points"].pop(name, None)

    sweep.update(change)
    _print(f"removed {pluralize(len(removed), 'point')}")
    return [f"{name}: {failure}" for name, failure in failures.items() if failure is not None]


def _remove(sweep: Sweep, name: str) -> str | None:
    """Remove the folder of a point. Returns why it stays; None if it is gone."""
    folder = sweep.folder / name
    if folder.is_symlink():
        return f"{folder} is a link, which is not removed"
    if not folder.is_dir():
        return None
    try:
        with FileLock(folder / point_state.LOCK, blocking=False):
            if point_state.is_done(folder):
                return "the point is done now, so it is not removed"
            shutil.rmtree(folder)
    except Timeout:
        return "another process trains the point now, so it is not removed"
    except OSError as error:
        return f"{folder} cannot be removed ({error.strerror})"
    return None


def _print(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
