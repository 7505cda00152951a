"""Data of the points in the report: states, metrics, labels, settings and training curves."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sae_sweeps.config.differences import flatten, shorten_paths
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.config.saes import TITLES, architecture_title
from sae_sweeps.evaluation.metrics import METRICS, choose_metrics, read_intervals
from sae_sweeps.report.blocks import round_digits
from sae_sweeps.report.contests import Contest, find_intervals
from sae_sweeps.runtime.records import matches
from sae_sweeps.sweep.comparison import ComparedPoint, Group, describe_data, finite_or_inf
from sae_sweeps.training.curve import read_lines

MAX_CURVE_LINES = 300  # number of lines to which training curves are thinned
SPARSITY_SHAPE = {
    "histogram": {"width": int, "counts": [int]},
    "by_position": [(float, None)],
    "special": {"positions": int, "l0": (float, None)},
}
CURVES = ("loss", "mse", "aux_loss", "l0", "dead_fraction", "threshold_mean", "lr")


def list_points(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return a dictionary per point, finished or not: key, labels, state, settings, metrics and training results.

    Numbers from results.json are not rounded. assets/identity.js explains `parts`, `short` and `contest`.
    """
    several = len({point.sweep.folder for group in groups for point in group.points}) > 1
    contests = {contest: number for number, contest in enumerate(dict.fromkeys(group.contest for group in groups))}
    rows = []
    for number, group in enumerate(groups):
        for point in group.points:
            results = point.results or {}
            label = group.label + f", seed {point.config['seed']}" * (len(group.points) > 1)
            rows.append(
                {
                    "key": f"{point.sweep.name}/{point.name}" if several else point.name,
                    "group": number,
                    "label": label,
                    "parts": _name_parts(group, point),
                    "contest": contests[group.contest],
                    "sweep": point.sweep.name,
                    "folder": point.name,
                    "state": point.state.state,
                    "reason": point.state.reason,
                    "step": point.state.step,
                    "architecture": point.config["sae"]["architecture"],
                    "dict_size": point.config["dict_size"],
                    "k": point.config["k"],
                    "seed": point.config["seed"],
                    "metrics": results.get("metrics"),
                    "intervals": _round_ends(read_intervals(results.get("intervals"))),
                    "training": results.get("training"),
                    "has_sparsity": (sparsity := read_sparsity(point)) is not None,
                    "has_positions": bool(sparsity and sparsity["by_position"]),
                    "settings": collect_settings(point),
                }
            )
    return _keep_differing(rows)


def _name_parts(group: Group, point: ComparedPoint) -> dict[str, str]:
    """Return the parts of a point's label, by what they are about."""
    config = point.config
    return {
        "sweep": point.sweep.name,
        "architecture": architecture_title(config["sae"]["architecture"]),
        "dict_size": f"{config['dict_size']} latents",
        "k": f"k {config['k']}",
        "settings": group.settings,
        "seed": f"seed {config['seed']}",
    }


def _keep_differing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the parts of labels in which rows differ, and add them as a short label; the whole label if that is unclear.

    Returns the rows, changed in place.
    """
    differing = [name for name in (rows[0]["parts"] if rows else {}) if len({row["parts"][name] for row in rows}) > 1]
    for row in rows:
        row["parts"] = {name: row["parts"][name] for name in differing}
        row["short"] = ", ".join(filter(None, row["parts"].values())) or row["label"]
    shorts = Counter(row["short"] for row in rows)
    for row in rows:
        if shorts[row["short"]] > 1:
            row["short"] = row["label"]
    return rows


def list_groups(groups: Sequence[Group], contests: Sequence[Contest] = ()) -> list[dict[str, Any]]:
    """Return label, mean, standard deviation and interval of each metric for every group of points of several seeds.

    contests: have the draws of which the intervals are made
    """
    return [
        {
            "label": group.label,
            "mean": group.mean,
            "spread": group.spread,
            "intervals": _round_ends(find_intervals(contests, group)),
        }
        for group in groups
    ]


def _round_ends(intervals: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    """Return the ends of each interval, the last two of its numbers, rounded: they are drawn, not printed."""
    return {name: [round_digits(end) for end in numbers[-2:]] for name, numbers in intervals.items()}


def collect_settings(point: ComparedPoint) -> dict[str, str]:
    """Return the settings that determine a point's result, the commit and the package versions: name -> text."""
    settings = {
        key: _to_text(shorten_paths(value))
        for key, value in flatten(select_result_settings(dict(point.config))).items()
    }
    provenance = {} if point.results is None else point.results["provenance"]
    packages = {f"packages.{name}": version for name, version in provenance.get("packages", {}).items()}
    commit = {"commit": provenance["commit"]} if provenance.get("commit") else {}
    return {**settings, **packages, **commit}


def is_provenance(key: str) -> bool:
    """Return whether a name in `collect_settings` is of the commit or a package."""
    return key == "commit" or key.startswith("packages.")


def collect_point_data(
    groups: Sequence[Group],
    contests: Sequence[Contest],
    points: Sequence[ComparedPoint],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the page's data of the points, and how their metrics and architectures are called.

    rows: those of `list_points`, from which settings that all share are removed
    """
    return {
        "architectures": TITLES,
        "metrics": list_metrics(points),
        "groups": list_groups(groups, contests),
        "points": rows,
        "shared": split_shared_settings(rows),
    }


def split_shared_settings(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Remove the settings that are equal in all rows from the rows, in place. Returns the removed settings.

    Commit and package versions are those of results: a point without results does not differ in them.
    """
    values: dict[str, set[str | None]] = {}
    for key in {key: None for row in rows for key in row["settings"]}:
        asked = [row for row in rows if row["metrics"] is not None or not is_provenance(key)]
        values[key] = {row["settings"].get(key) for row in asked}
    shared = {key: value for key, (value, *others) in values.items() if value is not None and not others}
    for row in rows:
        row["settings"] = {key: value for key, value in row["settings"].items() if key not in shared}
    return shared


def read_curve(point: ComparedPoint) -> dict[str, list[float | None]] | None:
    """Return the training curve of a point by name, thinned to MAX_CURVE_LINES values; None if there is no curve."""
    lines = [line for line in read_lines(point.sweep.folder / point.name / "metrics.jsonl") if "tokens" in line]
    if not lines:
        return None
    stride = -(-len(lines) // MAX_CURVE_LINES)
    kept = lines[::-1][::stride][::-1]  # counted from the end, to keep the last line
    names = [name for name in CURVES if name in kept[-1]]
    curves = {name: [round_digits(line.get(name)) for line in kept] for name in names}
    return {"tokens": [line["tokens"] for line in kept], **curves}


def read_sparsity(point: ComparedPoint) -> dict[str, Any] | None:
    """Return a point's numbers of active latents (evaluation/sparsity.py), rounded; None if its results have none."""
    found = (point.results or {}).get("sparsity")
    if found is None or not matches(found, SPARSITY_SHAPE):
        return None
    return {**found, "by_position": [round_digits(mean) for mean in found["by_position"]]}


def list_metrics(points: Sequence[ComparedPoint]) -> list[dict[str, Any]]:
    """Return a dictionary per metric: name, title, unit, decimals, whether low or high is better, and explanation."""
    return [asdict(metric) for metric in choose_metrics(point.metrics for point in points)]


def format_mean(name: str, group: Group) -> str:
    """Return the mean of the metric `name` as text, with ± standard deviation if there are several seeds."""
    metric, spread = METRICS[name], group.spread.get(name)
    return metric.text(group.mean.get(name)) + (f" ± {metric.text(spread)}" if spread is not None else "")


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def group_comparable(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return the seed groups with a finite NMSE, lowest first, by a description of model, hook and text.

    Only groups that agree in all three can be compared.
    """
    comparable: dict[str, list[Group]] = {}
    for group in sorted(groups, key=get_nmse):
        if math.isfinite(get_nmse(group)):
            comparable.setdefault(describe_data(group.points[0]), []).append(group)
    return comparable


def get_nmse(group: Group) -> float:
    """Return the mean NMSE of a group; infinity if it has none."""
    return finite_or_inf(group.mean.get("nmse"))
