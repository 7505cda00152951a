"""Successive halving in a pack: points pause at rungs until their bracket is there, then continue or are pruned."""

import logging
from collections.abc import Sequence

from sae_sweeps.activations.source import Source
from sae_sweeps.evaluation.metrics import PREDICTIONS, TEXT, is_of_planted
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.sweep.halving import Brackets, list_rungs, name_objective, read_rungs, write_value
from sae_sweeps.tasks.point import PointRun

log = logging.getLogger(__name__)

COMPARED = 8192  # held-out activations on which points are compared by a metric that takes none


class Halving:
    """The points of a pack that wait at rungs. It does nothing for points without `halving`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._paused: dict[PointRun, int] = {}  # point -> the rung where it waits

    def pause(self, run: PointRun) -> None:
        """Pause a point that has just reached a rung, and write its objective there, unless it is known already."""
        config, rung = run.config, run.trainer.tokens_done
        if not config.halving.enabled or rung not in list_rungs(config):
            return
        run.trainer.stopped = True
        known = read_rungs(run.point.folder)
        if known is None or known.bracket != run.bracket or rung not in known.values:
            write_value(run.point, rung, self._measure(run))
        self._paused[run] = rung

    def _measure(self, run: PointRun) -> float | None:
        """Return the objective of a point as it is now, on the held-out activations of its results, or on the first.

        All points have the same activations, so that some thousands are enough to compare them.
        """
        name, source = name_objective(run.config), self._source.at(run.config.model.hook)
        data = source.held_out(run.config.evaluation.tokens)
        if name.startswith(PREDICTIONS):
            return run.measure(source.model, data, name)
        if name.endswith(TEXT) or is_of_planted(name):  # of some of the positions; of what is known of them
            return run.measure(None, data, name)
        return run.measure(None, data.acts_AD[:COMPARED], name)

    def settle(self, runs: Sequence[PointRun]) -> list[tuple[PointRun, str]]:
        """Resume paused points that are good enough. Returns those that are not, each with a reason.

        A point is compared once all points of its bracket in this pack have reached the rung, with all points of the
        sweep that have reached it, in other packs and commands too.

        runs: all points of the pack
        """
        due = {run: rung for run, rung in self._paused.items() if not self._is_early(run, rung, runs)}
        if not due:
            return []
        brackets = Brackets(next(iter(due)).point.folder.parent)
        pruned = []
        for run, rung in due.items():
            del self._paused[run]
            if brackets.keeps(run.point, rung):
                run.trainer.stopped = False
                continue
            place, count = brackets.rank(run.point, rung)
            by = f"by {name_objective(run.config)} at {rung:,} activations"
            pruned.append((run, f"place {place} of {pluralize(count, 'point')} {by}"))
        log.info("halving: %d of %s continue", len(due) - len(pruned), pluralize(len(due), "compared point"))
        return pruned

    def _is_early(self, run: PointRun, rung: int, runs: Sequence[PointRun]) -> bool:
        """Return whether a point of the bracket is in training and has not reached the rung."""
        early = (other for other in runs if other.is_open and other.trainer.tokens_done < rung)
        return any(other.bracket == run.bracket for other in early)
