"""What is compared of points: the metrics and which end of each is best, seeds taken together, what differs."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sae_sweeps.config import from_json
from sae_sweeps.config.differences import find_varying, flatten, shorten_path
from sae_sweeps.config.identity import result_settings
from sae_sweeps.evaluation.metrics import Metric
from sae_sweeps.runtime.files import read_json
from sae_sweeps.sweep.point_state import RESULTS, State
from sae_sweeps.sweep.sweep import Sweep

ARCHITECTURES = {
    "batchtopk": "BatchTopK",
    "topk": "TopK",
    "jumprelu": "JumpReLU",
    "matryoshka": "Matryoshka",
    "relu": "ReLU",
    "gated": "Gated",
}


@dataclass(frozen=True)
class ComparedPoint:
    """A point, done or not. `results` is what its results.json holds, None while there is none."""

    sweep: Sweep
    name: str
    state: State
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None

    @property
    def metrics(self) -> dict[str, float]:
        return {} if self.results is None else self.results["metrics"]


@dataclass(frozen=True)
class Group:
    """Points of a sweep that differ in nothing but their seed. Of each metric the mean of those that are done, and the
    sample standard deviation, which is None where fewer than two are."""

    label: str
    points: list[ComparedPoint]
    mean: dict[str, float]
    spread: dict[str, float | None]


def collect_points(
    sweep: Sweep, states: Mapping[str, State], content: Mapping[str, Any] | None = None
) -> list[ComparedPoint]:
    """Return the points of a sweep that have a state, done or not, in the order in which they were added.

    content: what sweep.json holds, if it has been read already
    """
    content = sweep.read() if content is None else content
    return [
        ComparedPoint(
            sweep, name, states[name], asdict(from_json(known["config"])), read_json(sweep.folder / name / RESULTS)
        )
        for name, known in content["points"].items()
        if name in states  # others have come since
    ]


def group_by_seed(points: Sequence[ComparedPoint]) -> list[Group]:
    """Points that differ only in their seed together, in the order of the first of each. A group's label names what
    tells it from the others."""
    several = len({point.sweep.folder for point in points}) > 1
    groups: dict[str, list[ComparedPoint]] = {}
    for point in points:
        settings = {key: value for key, value in result_settings(dict(point.config)).items() if key != "seed"}
        key = json.dumps([str(point.sweep.folder), settings], sort_keys=True)
        groups.setdefault(key, []).append(point)
    alike: dict[str, list[ComparedPoint]] = {}
    for members in groups.values():
        alike.setdefault(point_label(members[0], several), []).append(members[0])
    found = []
    for members in groups.values():
        said = point_label(members[0], several)
        told = [key for key in find_varying([one.config for one in alike[said]]) if key != "seed"]
        found.append(_group(said + settings_in_words(members[0], told), members))
    labels = [group.label for group in found]
    return [  # paths may differ in more than their ends
        replace(group, label=f"{group.label} ({group.points[0].name[-8:]})") if labels.count(group.label) > 1 else group
        for group in found
    ]


def _group(label: str, points: list[ComparedPoint]) -> Group:
    values: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.metrics.items():
            values.setdefault(name, []).append(value)
    return Group(
        label,
        points,
        {name: statistics.fmean(found) for name, found in values.items()},
        {name: _spread(found) for name, found in values.items()},
    )


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None


def finite(value: float | None) -> float:
    """A number to sort by, the lowest first: what is none comes last."""
    return value if value is not None and math.isfinite(value) else math.inf


def point_label(point: ComparedPoint, several: bool = False) -> str:
    """What a point is, in words: BatchTopK 6144, k 32; of one of several sweeps, that sweep's name before it."""
    words = display_name(point.config["sae"]["architecture"], point.config["dict_size"], point.config["k"])
    return f"{point.sweep.name}: {words}" if several else words


def display_name(architecture: str, dict_size: int, k: int | None) -> str:
    """In words; of an SAE from elsewhere k is not always known."""
    name = f"{ARCHITECTURES.get(architecture, architecture)} {dict_size}"
    return name if k is None else f"{name}, k {k}"


def settings_in_words(point: ComparedPoint, keys: Sequence[str]) -> str:
    """Some settings, to stand behind a label; of paths their ends."""
    settings = flatten(result_settings(dict(point.config)))
    return "".join(f", {key} {shorten_path(settings[key])}" for key in keys if settings.get(key) is not None)


def find_best(groups: Iterable[Group], metric: Metric) -> float | None:
    """The best mean of a metric, None if neither end of it is better or all are the same."""
    values = [mean for group in groups if math.isfinite(mean := group.mean.get(metric.name, math.nan))]
    if metric.best is None or len(set(values)) < 2:
        return None
    return min(values) if metric.best == "min" else max(values)
