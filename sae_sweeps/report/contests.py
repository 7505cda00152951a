"""Kinds of SAEs that are measured on the same text at one k, and how surely one is better than another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sae_sweeps.evaluation.bootstrap import Difference, Draws, Interval, Trained, average, compare, draw_metrics
from sae_sweeps.evaluation.metrics import is_worse_than_mean
from sae_sweeps.evaluation.unit_sums import UnitSums
from sae_sweeps.sweep.comparison import DATA_SEED, SEED, ComparedPoint, Group, describe_data, group_by_seed
from sae_sweeps.sweep.unit_sums import read_sums

Measured = list[tuple[ComparedPoint, UnitSums]]
ERROR, CE, AT_K = "nmse", "ce_degradation", "_at_k"  # lower is better for both metrics


@dataclass(frozen=True, eq=False)
class Kind:
    """SAEs that differ only in their seeds. `draws`: of each SAE, its metrics by name"""

    label: str
    points: Sequence[ComparedPoint]
    draws: Sequence[dict[str, Draws]]

    @property
    def dict_size(self) -> int:
        """Return the dictionary size."""
        return int(self.points[0].config["dict_size"])

    def has(self, metric: str) -> bool:
        """Return whether all of the SAEs have a metric."""
        return all(metric in one for one in self.draws)

    def get_mean(self, metric: str) -> float:
        """Return the mean of a metric over the SAEs."""
        return average([one[metric] for one in self.draws]).value

    def list_trained(self, metric: str) -> list[Trained]:
        """Return the SAEs with their seeds and their draws of a metric."""
        return [
            Trained(point.config["seed"], point.config["dataset"]["seed"], one[metric])
            for point, one in zip(self.points, self.draws, strict=True)
        ]


@dataclass(frozen=True)
class Contest:
    """Kinds of SAEs that can be compared: of one k, measured on the same text.

    data: model, hook and text
    unit, units: what the text is a sample of ("document" or "sequence"), and how many there are
    """

    k: int
    data: str
    unit: str
    units: int
    kinds: Sequence[Kind]

    @cached_property
    def is_at_k(self) -> bool:
        """Return whether all kinds are measured at an L0 of k."""
        return all(kind.has(ERROR + AT_K) for kind in self.kinds)

    @property
    def error(self) -> str:
        """Return the name of the NMSE by which kinds are compared, at an L0 of k if all have it."""
        return ERROR + AT_K * self.is_at_k

    @property
    def ce(self) -> str | None:
        """Return the name of the CE degradation by which kinds are compared; None if one of them has none."""
        name = CE + AT_K * self.is_at_k
        return name if all(kind.has(name) for kind in self.kinds) else None

    def rank(self, metric: str | None = None) -> list[Kind]:
        """Return the kinds, the one with the lowest metric first; None: the NMSE."""
        return sorted(self.kinds, key=lambda kind: kind.get_mean(metric or self.error))

    def compare(self, better: Kind, other: Kind, metric: str) -> Difference:
        """Return by how much a kind is lower in a metric than another, with the interval."""
        return compare(other.list_trained(metric), better.list_trained(metric))


def find_contests(points: Sequence[ComparedPoint]) -> list[Contest]:
    """Return the contests between the points, lowest k first.

    Points whose sums are not known, as those of earlier versions, and those worse than the mean are in none.
    """
    found: dict[tuple[str, int, str], dict[str, Measured]] = {}
    for group in group_by_seed(points, (SEED, DATA_SEED)):
        for point in group.points:
            sums = None if point.results is None else read_sums(point.sweep.folder / point.name, point.results)
            if sums is not None and not is_worse_than_mean(point.metrics):
                key = (describe_data(point), point.config["k"], sums.fingerprint)
                found.setdefault(key, {}).setdefault(group.label, []).append((point, sums))
    return [_build_contest(*key[:2], found[key]) for key in sorted(found)]


def _build_contest(data: str, k: int, kinds: Mapping[str, Measured]) -> Contest:
    """Return the contest of kinds that are measured on the same text. `kinds`: the SAEs of each, by label"""
    sums = [sums for members in kinds.values() for _, sums in members]
    draws = iter(draw_metrics(sums))
    built = [Kind(label, [point for point, _ in each], [next(draws) for _ in each]) for label, each in kinds.items()]
    return Contest(k, data, sums[0].unit, sums[0].count, [kind for kind in built if kind.has(ERROR)])


def find_intervals(contests: Sequence[Contest], group: Group) -> dict[str, Interval]:
    """Return the interval of each metric of a group of points that differ only in seed, over its text; by name."""
    wanted = {(point.sweep.folder, point.name) for point in group.points if point.results is not None}
    found = [
        draws
        for contest in contests
        for kind in contest.kinds
        for point, draws in zip(kind.points, kind.draws, strict=True)
        if (point.sweep.folder, point.name) in wanted
    ]
    if not found or len(found) < len(wanted):
        return {}
    known = [name for name in found[0] if all(name in one for one in found)]
    return {name: average([one[name] for one in found]).find_interval() for name in known}
