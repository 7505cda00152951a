"""Follow-up tasks (`then=[...]`), which run when all points of a sweep have ended: here, or as Slurm jobs."""

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


def sort_studies_first(tasks: Iterable[str]) -> list[str]:
    """Return each task once, studies first, because a report shows them."""
    return sorted(dict.fromkeys(tasks), key=lambda task: task not in STUDY_TASKS)


def run_follow_up(task: str, sweep: Sweep, config: Config, label: str | None = None) -> bool:
    """Run the task and record its outcome in sweep.json. Returns False if any part of it failed, or if it did not run.

    label: the key of the outcome; None: the task's name
    """
    run = load_sweep_task(task)
    state, reason = DONE, None
    try:
        if failures := run(sweep, config):
            state, reason = FAILED, "; ".join(failures)
            log.warning("%s: %s", task, reason)
    except NotRunError as error:
        log.warning("%s: not run: %s", task, error)
        state, reason = NOT_RUN, str(error)
    except Exception as error:
        log.exception("%s: failed", task)
        state, reason = FAILED, describe_error(error)

    _record_outcome(sweep, label or task, state, reason)
    return state == DONE


def record_failure(sweep: Sweep, label: str, reason: str) -> None:
    """Record in sweep.json that a task has failed, without running it."""
    _record_outcome(sweep, label, FAILED, reason)


def _record_outcome(sweep: Sweep, label: str, state: str, reason: str | None) -> None:
    """Write the outcome of a task into sweep.json, with the Slurm job that ran it."""

    def change(known: dict[str, Any]) -> None:
        known["followed"][label] = {"state": state, "reason": reason, "job": point_state.this_job()}

    sweep.update(change)
