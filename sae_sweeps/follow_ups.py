"""The tasks that follow when the points of a sweep are through (`then=[...]`), here or as Slurm jobs of their own."""

import importlib
import logging
from typing import Any

from sae_sweeps import states
from sae_sweeps.errors import reason
from sae_sweeps.states import DONE, FAILED
from sae_sweeps.sweep import Sweep

log = logging.getLogger(__name__)

NOT_RUN = "not run"


def follow_up(task: str, sweep: Sweep) -> bool:
    """Run the task and note in sweep.json how it ended. False if it failed, or was not run for want of points.

    A task is a module of tasks/ with `run_sweep(sweep)` and NEEDS_ALL: whether it is for finished sweeps only.
    """
    module = importlib.import_module(f"sae_sweeps.tasks.{task}")
    unfinished = [name for name in sweep.read()["points"] if not states.is_done(sweep.folder / name)]
    state, why = DONE, None
    if module.NEEDS_ALL and unfinished:
        state, why = NOT_RUN, f"not done: {', '.join(unfinished)}"
        log.warning("%s: not run, for it needs all points; %s", task, why)
    else:
        try:
            if not module.run_sweep(sweep):
                state, why = FAILED, "as its log tells"
        except Exception as error:
            log.exception("%s: failed", task)
            state, why = FAILED, reason(error)

    def change(known: dict[str, Any]) -> None:
        known["followed"][task] = {"state": state, "reason": why, "job": states.this_job()}

    sweep.update(change)
    return state == DONE
