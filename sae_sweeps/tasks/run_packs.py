"""Runs packs (points that share an activation stream) one after another in this process."""

import logging
from collections.abc import Callable, Iterator, Sequence

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import LockedError, describe_error
from sae_sweeps.runtime.held import LostFolderError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.halving import list_revived
from sae_sweeps.sweep.packs import Limits, split_into_packs
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, PRUNED, RUNNING
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
    failures: dict[str, str] = {}
    counted: set[str] = set()
    tokens = {point.name: point.config.training.tokens + point.config.evaluation.tokens for point in points}
    with SweepProgress(len(points), tokens=tokens).live() as progress:
        for pack in _list_packs(points, limits):
            unfinished = {point.name: point for point in pack}

            def on_finished(point: Point, error: Exception | None, unfinished: dict[str, Point] = unfinished) -> None:
                unfinished.pop(point.name, None)
                if error is not None:
                    failures[point.name] = describe_error(error)
                state, reason = _describe_end(point, failures.get(point.name))
                if not isinstance(error, LockedError):  # else the process that holds the lock records the state
                    if error is not None and not isinstance(error, LostFolderError):
                        _record_failure(point, failures[point.name])
                    sweep.set_state(point.name, state, reason)
                if point.name not in counted:  # a pruned point that continues ends twice
                    counted.add(point.name)
                    progress.count_finished(point.name, failed=state == FAILED, pruned=state == PRUNED)
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


def _list_packs(points: Sequence[Point], limits: Limits) -> Iterator[list[Point]]:
    """Yield the packs of all points, then of those that halving has pruned and that continue after all."""
    left = list(points)
    while left:
        packs = split_into_packs(left, limits.points)
        if len(packs) > 1:
            sizes = " + ".join(str(len(pack)) for pack in packs)
            log.info("running %d points in %d packs of %s points", len(left), len(packs), sizes)
        yield from packs
        left = list_revived(points)
        if left:
            log.info("halving: %s continue after all", pluralize(len(left), "pruned point"))


def _describe_end(point: Point, failure: str | None) -> tuple[str, str | None]:
    """Return the state of a point that has ended, and the reason. `failure`: why it failed; None if it did not"""
    if failure is not None:
        return FAILED, failure
    state = point_state.read_state(point.folder)
    return (PRUNED, state.reason) if state.state == PRUNED else (DONE, None)


def _record_failure(point: Point, reason: str) -> None:
    """Write the state "failed" and the reason into the point's folder; only log a warning if the disk is full."""
    try:
        point_state.write_state_if_unlocked(point.folder, FAILED, reason)
    except OSError as error:
        message = "%s: the point failed, but its folder does not show this, because state.json cannot be written: %s"
        log.warning(message, point.name, describe_error(error))
