"""Packs of points run one after another in this process, on this machine or as a Slurm job."""

import logging
from collections.abc import Sequence

from sae_sweeps.runtime.errors import LockedError, describe_error
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.packs import Limits, split_into_packs
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, RUNNING
from sae_sweeps.tasks.registry import load_point_task

log = logging.getLogger(__name__)


def run_packs(sweep: Sweep, points: Sequence[Point], limits: Limits) -> dict[str, str]:
    """Run all points. Returns why some failed (folder name -> reason); one that fails does not stop the others.

    Raises: KeyboardInterrupt or Stopped if told to stop; the points can go on later.
    """
    packs = split_into_packs(points, limits.points)
    if len(packs) > 1:
        log.info("%d points in %d packs of %s", len(points), len(packs), " + ".join(str(len(pack)) for pack in packs))
    failures: dict[str, str] = {}
    with SweepProgress(len(points)).live() as progress:
        for pack in packs:
            waiting = {point.name: point for point in pack}

            def outcome(point: Point, error: Exception | None, waiting: dict[str, Point] = waiting) -> None:
                waiting.pop(point.name, None)
                if error is not None:
                    failures[point.name] = describe_error(error)
                if not isinstance(error, LockedError):  # then the point is another's, and its state too
                    if error is not None:
                        _note_failure(point, failures[point.name])
                    sweep.set_state(point.name, FAILED if error else DONE, failures.get(point.name))
                progress.count_finished(failed=error is not None)

            sweep.set_states(waiting, RUNNING)
            try:
                load_point_task(pack[0].config.task.name)(pack, limits, progress, outcome)
            except Exception as error:  # what all of the pack need cannot be had
                for point in list(waiting.values()):
                    outcome(point, error)
            except BaseException as stop:  # a signal
                sweep.set_states(waiting, INTERRUPTED, str(stop) or type(stop).__name__)
                raise
    return failures


def _note_failure(point: Point, why: str) -> None:
    try:
        point_state.write_state_if_unlocked(point.folder, FAILED, why)
    except OSError as error:
        log.warning("%s: that it failed could not be written (%s)", point.name, describe_error(error))
