"""The tasks that follow when the points of a sweep are through (`then=[...]`), here or as Slurm jobs of their own."""

import importlib
import logging
from typing import Any

from sae_sweeps import states
from sae_sweeps.config import Config
from sae_sweeps.errors import NotRunError, reason
from sae_sweeps.states import DONE, FAILED
from sae_sweeps.sweep import Sweep

log = logging.getLogger(__name__)

NOT_RUN = "not run"


def follow_up(task: str, sweep: Sweep, config: Config, label: str | None = None) -> bool:
    """Run the task with the settings of a command, and note in sweep.json how it ended, under a label of its own or
    its name. False if it failed in whole or in part, or was not run for want of points.

    A task is a module of tasks/ whose `run_sweep(sweep, config)` returns why what failed has failed, and raises
    NotRunError if there is nothing that it could be run on.
    """
    module = importlib.import_module(f"sae_sweeps.tasks.{task}")
    state, why = DONE, None
    try:
        if failures := module.run_sweep(sweep, config):
            state, why = FAILED, "; ".join(failures)
    except NotRunError as error:
        log.warning("%s: not run: %s", task, error)
        state, why = NOT_RUN, str(error)
    except Exception as error:
        log.exception("%s: failed", task)
        state, why = FAILED, reason(error)

    def change(known: dict[str, Any]) -> None:
        known["followed"][label or task] = {"state": state, "reason": why, "job": states.this_job()}

    sweep.update(change)
    return state == DONE
