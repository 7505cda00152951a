"""The scaling laws of a sweep: which points one law is about, the law as JSON, and the file scaling.json.

One law is about the finished points that differ in nothing but dictionary size, k, training tokens and seeds. Only
their final values count: where the learning rate falls at the end, the middle of a training curve is no shorter
training.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sae_sweeps.config import from_json
from sae_sweeps.config.differences import find_varying, flatten
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.config.saes import architecture_title
from sae_sweeps.evaluation.bootstrap import Interval
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.studies.scaling import Fit, Predicted, ScalingError, Trained, average_seeds, fit_law, hold_out
from sae_sweeps.sweep.comparison import ComparedPoint, name_settings
from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.scaling_budget import BEYOND, Budget
from sae_sweeps.sweep.sweep import Sweep

FILE = "scaling.json"
ENDS = {"value": float, "low": float, "high": float}
PREDICTED = {"dict_size": int, "k": int, "tokens": int, **ENDS, "nmse": (float, None), "miss": (float, None)}
SIZE = {"dict_size": int, "k": int, "tokens": int, "nmse": float}
CURVE = {"dict_size": [float], "value": [float], "low": [float], "high": [float]}
BY_K = {"k": int, "exponent": ENDS, "irreducible": (ENDS, None), "curve": CURVE}
BUDGET = {"hours": float, "speed": str, "best": [PREDICTED]}
LAW = {
    **{"group": str, "label": str, "metric": str, "points": [SIZE], "notes": [str], "tokens": int, "sigma": float},
    **{"parameters": {str: float}, "center": {str: float}, "by_k": [BY_K]},
    **{"predictions": [PREDICTED], "held_out": [PREDICTED], "budget": (BUDGET, None)},
}
SHAPE = {"laws": [LAW], "refused": {str: str}}

MAY_DIFFER = ("dict_size", "k", "seed", "dataset.seed", "training.tokens")
AT_K, AS_TRAINED = "nmse_at_k", "nmse"  # metrics: at an L0 of k, and at the L0 that the SAE has
CURVE_POINTS = 41


@dataclass(frozen=True)
class LawGroup:
    """The finished points of one law. key: a hash of their settings; metric: the one that all of them have"""

    key: str
    label: str
    metric: str
    points: list[ComparedPoint]

    @property
    def trained(self) -> list[Trained]:
        """Return the sizes and NMSEs of the points."""
        return [_read_sizes(point, self.metric) for point in self.points]


def group_for_laws(points: Sequence[ComparedPoint]) -> list[LawGroup]:
    """Return the finished points of each law, in the order of the first point of each."""
    found: dict[str, list[ComparedPoint]] = {}
    for point in points:
        if point.results is not None:
            found.setdefault(_hash_settings(point), []).append(point)
    groups = [LawGroup(key, _title(members[0]), _choose_metric(members), members) for key, members in found.items()]
    return [_name_apart(group, [other for other in groups if other.label == group.label]) for group in groups]


def _hash_settings(point: ComparedPoint) -> str:
    """Return a hash of the settings that are equal in all points of a law. A target L0 of k counts as no setting."""
    settings = flatten(select_result_settings(dict(point.config)))
    if settings.get("sae.target_l0") == point.config["k"]:
        del settings["sae.target_l0"]
    kept = {name: value for name, value in settings.items() if name not in MAY_DIFFER}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _title(point: ComparedPoint) -> str:
    return architecture_title(point.config["sae"]["architecture"])


def _choose_metric(points: Sequence[ComparedPoint]) -> str:
    return AT_K if all(AT_K in point.metrics for point in points) else AS_TRAINED


def _name_apart(group: LawGroup, alike: Sequence[LawGroup]) -> LawGroup:
    """Return the group with a label that also names the settings in which it differs from groups of its label."""
    varying = find_varying([other.points[0].config for other in alike])
    settings = name_settings(group.points[0], [name for name in varying if name not in MAY_DIFFER])
    return replace(group, label=group.label + "".join(f", {name} {value}" for name, value in settings.items()))


def _read_sizes(point: ComparedPoint, metric: str) -> Trained:
    config = point.config
    nmse = point.metrics.get(metric, float("nan"))
    return Trained(config["dict_size"], config["k"], config["training"]["tokens"], nmse)


def describe_law(
    group: LawGroup, dict_sizes: Sequence[int] = (), tokens: Sequence[int] = (), budget: Budget | None = None
) -> dict[str, Any]:
    """Return the law of a group as JSON of the shape LAW, with predictions of these sizes and tokens.

    dict_sizes, tokens: an empty one stands for the values that the points have, if the other is not empty. Points that
    are predicted are not used for the law.
    Raises: ScalingError if the points are too few. ConfigError if a budget is given and the model cannot be read.
    """
    trained = average_seeds(group.trained)
    ks, known_tokens = sorted({one.k for one in trained}), sorted({one.tokens for one in trained})
    asked: set[tuple[int, int]] = set()
    if dict_sizes or tokens:
        asked = set(itertools.product(dict_sizes or {one.dict_size for one in trained}, tokens or known_tokens))
    used = [one for one in trained if (one.dict_size, one.tokens) not in asked]
    fit, most = fit_law(used), max((one.tokens for one in used), default=0)
    notes = list(fit.notes)
    if "epsilon" not in fit.names and (others := {number for _, number in asked} - {most}):
        notes.append(f"Other tokens than {most:,} cannot be predicted: they need SAEs of several numbers of tokens.")
        asked = {(size, number) for size, number in asked if number not in others}
    predictions = [
        Predicted(size, k, number, fit.predict(size, k, number), None) for size, number in sorted(asked) for k in ks
    ]
    held_out = _hold_out(used, notes)
    law = {
        "group": group.key,
        "label": group.label,
        "metric": group.metric,
        "points": [one._asdict() for one in fit.points],
        "notes": notes,
        "tokens": most,
        "sigma": fit.sigma,
        "parameters": dict(zip(fit.names, map(float, fit.parameters_P), strict=True)),
        "center": {axis: float(np.exp(value)) for axis, value in fit.center.items()},
        "by_k": [_describe_k(fit, k, most) for k in sorted({one.k for one in fit.points})],
        "predictions": list(map(_describe_prediction, predictions)),
        "held_out": list(map(_describe_prediction, held_out)),
        "budget": budget and _describe_budget(budget, fit, group.points[0]),
    }
    return add_truths(law, group)


def _hold_out(points: Sequence[Trained], notes: list[str]) -> list[Predicted]:
    """Predict the points of the largest size, and those of the most tokens if there are three numbers of them.

    notes: gets a sentence if a prediction is impossible
    """
    found: list[Predicted] = []
    for axis in ("dict_size", *["tokens"] * (len({one.tokens for one in points}) > 2)):
        try:
            found += hold_out(points, axis)
        except ScalingError as error:
            notes.append(f"The points with the largest {axis} cannot be predicted from the others: {error}.")
    return list(dict.fromkeys(found))


def _describe_k(fit: Fit, k: int, tokens: int) -> dict[str, Any]:
    """Return the exponent, the part that stays and the curve of a law at a k, as JSON of the shape BY_K."""
    sizes = [one.dict_size for one in fit.points]
    at = np.geomspace(min(sizes), BEYOND * max(sizes), CURVE_POINTS).tolist()
    curve = [fit.evaluate(size, k, tokens) for size in at]
    stays = fit.find_irreducible(k)
    return {
        "k": k,
        "exponent": fit.find_exponent(k)._asdict(),
        "irreducible": stays and stays._asdict(),
        "curve": {"dict_size": at, **{name: [getattr(one, name) for one in curve] for name in Interval._fields}},
    }


def _describe_budget(budget: Budget, fit: Fit, point: ComparedPoint) -> dict[str, Any]:
    """Return what is best within a budget, as JSON of the shape BUDGET. point: one of the law"""
    config = from_json(dict(point.config))
    best = budget.choose(fit, Point(config, point.sweep.folder / point.name))
    speed = budget.describe_speed(config)
    return {"hours": budget.hours, "speed": speed, "best": list(map(_describe_prediction, best))}


def _describe_prediction(one: Predicted) -> dict[str, Any]:
    sizes = {"dict_size": one.dict_size, "k": one.k, "tokens": one.tokens}
    return {**sizes, **one.predicted._asdict(), "nmse": one.nmse, "miss": one.miss}


def add_truths(law: Mapping[str, Any], group: LawGroup) -> dict[str, Any]:
    """Return a law with the NMSE of each predicted size that has been trained since, and by how much it was missed."""
    known = {one[:3]: one.nmse for one in average_seeds(group.trained)}

    def complete(one: Mapping[str, Any]) -> dict[str, Any]:
        nmse = known.get((one["dict_size"], one["k"], one["tokens"]))
        return {**one, "nmse": nmse, "miss": None if nmse is None else one["value"] / nmse - 1}

    return {**law, "predictions": list(map(complete, law["predictions"]))}


def write_laws(sweep: Sweep, laws: Sequence[Mapping[str, Any]], refused: Mapping[str, str]) -> None:
    """Write scaling.json. refused: label of a group without a law -> why it has none"""
    write_record(sweep.folder / FILE, {"laws": list(laws), "refused": dict(refused)})


def read_laws(sweep: Sweep, points: Sequence[ComparedPoint]) -> Iterator[dict[str, Any]]:
    """Yield the laws of scaling.json, with what has been measured of their predictions since; none without the file."""
    content = read_record(sweep.folder / FILE, SHAPE, is_sealed=True) or {"laws": []}
    groups = {group.key: group for group in group_for_laws([one for one in points if one.sweep.folder == sweep.folder])}
    for law in content["laws"]:
        yield add_truths(law, groups[law["group"]]) if law["group"] in groups else law
