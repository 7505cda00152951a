"""Runs packs (points that share an activation stream) one after another in this process."""

import logging
from collections.abc import Callable, Sequence

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import LockedError, describe_error
from sae_sweeps.runtime.held import LostFolderError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.packs import Limits, split_into_packs
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, RUNNING
from sae_sweeps.tasks.registry import load_point_task

log = logging.getLogger(__name__)


def run_packs(
    sweep: Sweep,
    points: Sequence[Point],
    limits: Limits,
    on_start: Callable[[Sequence[Point]], None] = lambda points: None,
    on_end: Callable[[Point, str | None], None] = lambda point, reason: None,
) -> dict[str, str]:
    """Run all points, pack by pack. Returns the reasons of failed points: folder name -> reason.

    A point that fails does not stop the others.
    on_start: called with the points of a pack before it runs
    on_end: called with each point when it has ended, and the reason for which it failed; None if it is done
    Raises: KeyboardInterrupt at Ctrl-C, or Stopped at a signal; unfinished points can be resumed later.
    """
    packs = split_into_packs(points, limits.points)
    if len(packs) > 1:
        sizes = " + ".join(str(len(pack)) for pack in packs)
        log.info("running %d points in %d packs of %s points", len(points), len(packs), sizes)
    failures: dict[str, str] = {}
    tokens = {point.name: point.config.training.tokens + point.config.evaluation.tokens for point in points}
    with SweepProgress(len(points), tokens=tokens).live() as progress:
        for pack in packs:
            unfinished = {point.name: point for point in pack}

            def on_finished(point: Point, error: Exception | None, unfinished: dict[str, Point] = unfinished) -> None:
                unfinished.pop(point.name, None)
                if error is not None:
                    failures[point.name] = describe_error(error)
                if not isinstance(error, LockedError):  # else the process that holds the lock records the state
                    if error is not None and not isinstance(error, LostFolderError):
                        _record_failure(point, failures[point.name])
                    sweep.set_state(point.name, FAILED if error else DONE, failures.get(point.name))
                progress.count_finished(point.name, failed=error is not None)
                on_end(point, failures.get(point.name))

            on_start(pack)
            sweep.set_states(unfinished, RUNNING)
            try:
                load_point_task(pack[0].config.task.name)(pack, limits, progress, on_finished)
            except Exception as error:  # the whole pack cannot run, for example without its language model
                for point in list(unfinished.values()):
                    on_finished(point, error)
            except BaseException as stop:  # a signal
                sweep.set_states(unfinished, INTERRUPTED, f"stopped by {str(stop) or signals.CTRL_C}")
                raise
    return failures


def _record_failure(point: Point, reason: str) -> None:
    """Write the state "failed" and the reason into the point's folder; only log a warning if the disk is full."""
    try:
        point_state.write_state_if_unlocked(point.folder, FAILED, reason)
    except OSError as error:
        message = "%s: the point failed, but its folder does not show this, because state.json cannot be written: %s"
        log.warning(message, point.name, describe_error(error))
