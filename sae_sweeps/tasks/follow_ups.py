"""The tasks that follow when the points of a sweep are through (`then=[...]`), here or as Slurm jobs of their own."""

import logging
from collections.abc import Iterable
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.runtime.errors import NotRunError, describe_error
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.point_state import DONE, FAILED
from sae_sweeps.tasks.registry import load_sweep_task

log = logging.getLogger(__name__)

NOT_RUN = "not run"


def in_order(then: Iterable[str]) -> list[str]:
    """The tasks that follow, each once, studies first: a report tells of them."""
    return sorted(dict.fromkeys(then), key=lambda task: task not in STUDY_TASKS)


def follow_up(task: str, sweep: Sweep, config: Config, label: str | None = None) -> bool:
    """Run the task with the settings of a command, and note in sweep.json how it ended, under a label of its own or
    its name. False if it failed in whole or in part, or was not run for want of points."""
    run = load_sweep_task(task)
    state, why = DONE, None
    try:
        if failures := run(sweep, config):
            state, why = FAILED, "; ".join(failures)
            log.warning("%s: %s", task, why)
    except NotRunError as error:
        log.warning("%s: not run: %s", task, error)
        state, why = NOT_RUN, str(error)
    except Exception as error:
        log.exception("%s: failed", task)
        state, why = FAILED, describe_error(error)

    _note(sweep, label or task, state, why)
    return state == DONE


def give_up(sweep: Sweep, label: str, why: str) -> None:
    """Note that a task has failed without its being run again."""
    _note(sweep, label, FAILED, why)


def _note(sweep: Sweep, label: str, state: str, why: str | None) -> None:
    def change(known: dict[str, Any]) -> None:
        known["followed"][label] = {"state": state, "reason": why, "job": point_state.this_job()}

    sweep.update(change)
