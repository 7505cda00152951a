"""Intervals for metrics and their differences, by drawing the documents of the held-out text again (a bootstrap).

A document is drawn with all of its positions, and the same documents are drawn for all SAEs, so that the difference of
two SAEs is of the same text in each draw (paired). Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters
8 and 13. The percentile interval is too narrow if there are few documents, or a few large ones; it is expanded as
Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 5.3, for the effective number of documents of
Kish, Survey Sampling, 1965. docs/metrics.md has the formulas.
"""

# U units (documents), C columns of sums, R resamples, r resamples in a block

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from sae_sweeps.evaluation.unit_sums import RATIOS, Array, UnitSums
from sae_sweeps.runtime.seeds import mix_seed

RESAMPLES = 10_000
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
SEED = 0
DRAWN_AT_ONCE = 2**22  # documents drawn in a block


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Return whether the interval of a difference leaves out 0, so that its sign is known."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Draws:
    """A number that is measured on text, and the same on resampled text.

    effective: how many units of equal size would be as much text as the units are, which differ in size
    """

    value: float
    draws_R: Array
    effective: float

    def __sub__(self, other: "Draws") -> "Draws":
        return Draws(self.value - other.value, self.draws_R - other.draws_R, min(self.effective, other.effective))

    def find_interval(self) -> Interval:
        """Return the expanded percentile interval."""
        tail = expand_tail(self.effective)
        low, high = np.quantile(self.draws_R, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high))


def average(draws: Sequence[Draws]) -> Draws:
    """Return the mean of numbers that are measured on the same text."""
    draws_R = np.mean([one.draws_R for one in draws], axis=0)
    return Draws(float(np.mean([one.value for one in draws])), draws_R, min(one.effective for one in draws))


def expand_tail(effective: float) -> float:
    """Return the share of the draws outside of each end of the interval, which is less than 2.5 % for few units.

    With it the interval is as wide as that of Student's t if the draws are normal: it reaches t sqrt(n / (n - 1))
    standard deviations instead of 1.96.
    """
    return float(ndtr(np.sqrt(effective / (effective - 1)) * stdtrit(effective - 1, TAIL)))


def count_effective(size_U: Array) -> float:
    """Return the effective number of units, Kish's (sum of sizes)^2 / (sum of squared sizes)."""
    return float(size_U.sum() ** 2 / np.square(size_U).sum())


def resample(columns_UC: Array, resamples: int = RESAMPLES, seed: int = SEED) -> Array:
    """Return the sums of columns over units that are drawn with replacement, as many as there are: (R, C).

    How often each unit is drawn is multinomial, and the same for all columns.
    """
    units, sums = len(columns_UC), []
    generator = np.random.default_rng(mix_seed(seed, "bootstrap over documents"))
    block = max(1, DRAWN_AT_ONCE // units)
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        drawn_rU = generator.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
        weight_rU = np.bincount(drawn_rU.ravel(), minlength=rows * units).reshape(rows, units)
        sums.append(weight_rU @ columns_UC)
    return np.concatenate(sums)


def draw_metrics(saes: Sequence[UnitSums], resamples: int = RESAMPLES) -> list[dict[str, Draws]]:
    """Return the draws of each metric that each SAE has, by name. All SAEs must be measured on the same text.

    There are none where fewer than two units have most of the text.
    """
    assert len({one.fingerprint for one in saes}) <= 1, "only SAEs with the same text are drawn together"
    places: list[tuple[int, str, Array]] = []  # of each column: number of the SAE, metric, size of the units
    parts_U: list[Array] = []
    for number, one in enumerate(saes):
        for metric in RATIOS:
            if (ratio := one.get_ratio(metric)) is not None and count_effective(ratio[1]) >= 2:
                places.append((number, metric, ratio[1]))
                parts_U.append(ratio[0])
    found: list[dict[str, Draws]] = [{} for _ in saes]
    if not places:
        return found
    wholes = {size_U.tobytes(): size_U for _, _, size_U in places}  # mostly two, of activations and predictions
    sums_RC = resample(np.stack([*parts_U, *wholes.values()], axis=1), resamples)
    whole_R = dict(zip(wholes, sums_RC[:, len(places) :].T, strict=True))
    for (number, metric, size_U), part_U, part_R in zip(places, parts_U, sums_RC.T, strict=False):
        draws_R = part_R / whole_R[size_U.tobytes()]
        found[number][metric] = Draws(float(part_U.sum() / size_U.sum()), draws_R, count_effective(size_U))
    return found


def describe_intervals(sums: UnitSums) -> dict[str, Any]:
    """Return the entry `intervals` of results.json: the units, and the ends of the interval of each metric by name."""
    (draws,) = draw_metrics([sums])
    intervals = {name: one.find_interval() for name, one in draws.items()}
    ends = {name: {"low": interval.low, "high": interval.high} for name, interval in intervals.items()}
    return {"level": LEVEL, "unit": sums.unit, "units": sums.count, "metrics": ends}


class Trained(NamedTuple):
    """A trained SAE: its seeds, and a metric of it."""

    seed: int  # of the initialisation
    data_seed: int  # of the order of the data
    draws: Draws


class Difference(NamedTuple):
    """The difference of two kinds of SAEs.

    interval: over other text and other seeds
    trained: over other text, for these trained SAEs
    seeds, data_seeds: how many of each `interval` accounts for; both 1: it is that of these trained SAEs
    """

    interval: Interval
    trained: Interval
    seeds: int
    data_seeds: int


def compare(first: Sequence[Trained], second: Sequence[Trained]) -> Difference:
    """Return the mean of a metric over the SAEs of one kind less that of another, with its interval.

    With several seeds of both kinds, other seeds would give other means. The interval of the text and that of the seeds
    (Welch's) are combined as Zou & Donner, Statistics in Medicine 27, 2008: their squared reaches are added.
    """
    trained = (average([one.draws for one in first]) - average([one.draws for one in second])).find_interval()
    value, low, high = trained
    counts, reaches = [], []
    for get_seed in (lambda one: one.seed, lambda one: one.data_seed):
        means = [_average_by_seed(kind, get_seed) for kind in (first, second)]
        counts.append(min(map(len, means)))
        reaches.append(_find_reach(*means) if counts[-1] > 1 else 0.0)
    interval = Interval(value, value - math.hypot(value - low, *reaches), value + math.hypot(high - value, *reaches))
    return Difference(interval, trained, *counts)


def _find_reach(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how far Welch's 95 % interval of the difference of two means reaches, from a value of each seed."""
    squares = [float(np.var(one, ddof=1)) / len(one) for one in (first, second)]
    if sum(squares) == 0:
        return 0.0
    weights = sum(square**2 / (len(one) - 1) for square, one in zip(squares, (first, second), strict=True))
    return float(-stdtrit(sum(squares) ** 2 / weights, TAIL)) * math.sqrt(sum(squares))


def _average_by_seed(kind: Sequence[Trained], get_seed: Callable[[Trained], int]) -> list[float]:
    """Return the mean of a metric over the SAEs of each seed."""
    values: dict[int, list[float]] = {}
    for one in kind:
        values.setdefault(get_seed(one), []).append(one.draws.value)
    return [float(np.mean(each)) for each in values.values()]
