"""Runs follow-up tasks (`then=[...]`) when all points of a sweep have ended, in this process or in a Slurm job."""

import logging
from collections.abc import Iterable
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.runtime import logs
from sae_sweeps.runtime.errors import NotRunError, describe_error
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.point_state import DONE, FAILED
from sae_sweeps.tasks.registry import load_sweep_task

log = logging.getLogger(__name__)

NOT_RUN = "not run"


def sort_studies_first(tasks: Iterable[str]) -> list[str]:
    """Return the tasks without duplicates, studies first, because a report shows the results of studies."""
    return sorted(dict.fromkeys(tasks), key=lambda task: task not in STUDY_TASKS)


def run_follow_up(task: str, sweep: Sweep, config: Config, label: str | None = None) -> bool:
    """Run a follow-up task and record the outcome in sweep.json. Returns False if a part failed or the task cannot run.

    label: the key of the outcome in sweep.json; None: the task's name
    """
    run = load_sweep_task(task)
    state, reason = DONE, None
    try:
        if failures := run(sweep, config):
            state, reason = FAILED, "; ".join(failures)
            log.warning("%s: %s", task, reason)
    except NotRunError as error:
        log.warning("%s: the task was not run: %s", task, error)
        state, reason = NOT_RUN, str(error)
    except Exception as error:
        logs.log_failure(log, task, error)
        state, reason = FAILED, describe_error(error)

    _record_outcome(sweep, label or task, state, reason)
    return state == DONE


def record_failure(sweep: Sweep, label: str, reason: str) -> None:
    """Record in sweep.json that a task has failed, without running the task. `label`: the key of the outcome"""
    _record_outcome(sweep, label, FAILED, reason)


def _record_outcome(sweep: Sweep, label: str, state: str, reason: str | None) -> None:
    """Write the outcome of a task into sweep.json, with the id of the Slurm job of this process.

    label: the key of the outcome
    state: DONE, FAILED or NOT_RUN
    reason: why the task failed or was not run; None if it is done
    """

    def change(known: dict[str, Any]) -> None:
        known["followed"][label] = {"state": state, "reason": reason, "job": point_state.this_job()}

    sweep.try_to_update(change)
