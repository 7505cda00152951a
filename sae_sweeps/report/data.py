"""What the page tells of points: states, metrics, settings and training curves."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sae_sweeps import comparison
from sae_sweeps.comparison import METRICS, Compared, Group, finite
from sae_sweeps.config import deciding
from sae_sweeps.metrics import read_lines
from sae_sweeps.report.blocks import rounded
from sae_sweeps.states import DONE, FAILED

NOISE, UNEQUAL, MANY_DEAD = 0.02, 0.05, 0.3  # shares from which on a word of caution is said
CURVE_POINTS = 300  # lines of a training curve that are drawn at most
CURVES = ("loss", "mse", "aux_loss", "l0", "dead_fraction", "threshold_mean", "lr")


def points_data(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A row per point, those that are not done included. Numbers of results.json are as they are there."""
    several = len({point.sweep.folder for group in groups for point in group.points}) > 1
    rows = []
    for number, group in enumerate(groups):
        for point in group.points:
            results = point.results or {}
            label = group.label + f", seed {point.config['seed']}" * (len(group.points) > 1)
            rows.append(
                {
                    "key": key_of(point.name, point.sweep.name if several else None),
                    "group": number,
                    "label": label,
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
                    "training": results.get("training"),
                    "settings": settings_of(point),
                }
            )
    return rows


def key_of(point: str, sweep: str | None) -> str:
    """The name of a point in links: its folder, with that of its sweep where there are several."""
    return point if sweep is None else f"{sweep}/{point}"


def groups_data(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Points that differ in their seed alone, with means and spreads."""
    return [{"label": group.label, "mean": group.mean, "spread": group.spread} for group in groups]


def settings_of(point: Compared) -> dict[str, str]:
    """All that decides the result of a point, and what computed it, as text by full name."""
    settings = {key: _text(value) for key, value in comparison.flat(deciding(dict(point.config))).items()}
    made_by = {} if point.results is None else point.results["provenance"]
    packages = {f"packages.{name}": version for name, version in made_by.get("packages", {}).items()}
    commit = {"commit": made_by["commit"]} if made_by.get("commit") else {}
    return {**settings, **packages, **commit}


def shared(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Take out of the rows the settings that are the same in all of them, and return those."""
    first = rows[0]["settings"] if rows else {}
    same = {key: value for key, value in first.items() if all(row["settings"].get(key) == value for row in rows)}
    for row in rows:
        row["settings"] = {key: value for key, value in row["settings"].items() if key not in same}
    return same


def curve_of(point: Compared) -> dict[str, list[float | None]] | None:
    """The training curve of a point, thinned out; None if it has none."""
    lines = read_lines(point.sweep.folder / point.name / "metrics.jsonl")
    if not lines:
        return None
    stride = -(-len(lines) // CURVE_POINTS)
    kept = lines[::-1][::stride][::-1]  # the last line always
    names = [name for name in CURVES if name in kept[-1]]
    return {name: [rounded(line.get(name)) for line in kept] for name in ("tokens", *names)}


def metrics_data() -> list[dict[str, Any]]:
    return [
        {
            "name": metric.name,
            "title": metric.title,
            "unit": metric.unit,
            "decimals": metric.decimals,
            "best": metric.best,
            "explained": metric.explained,
        }
        for metric in METRICS.values()
    ]


def answer(groups: Sequence[Group]) -> str:
    """The sweep in one or two sentences: what reconstructs best, at what L0, at which cost; and what is missing."""
    points = [point for group in groups for point in group.points]
    done = [group for group in groups if math.isfinite(finite(group.mean.get("nmse")))]
    states = [point.state.state for point in points]
    missing = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != DONE)
    tail = f" {states.count(DONE)} of {len(points)} points are done" + f"; {missing}." if missing else ""
    if not done:
        return f"No point is done yet.{tail}"
    first = min(done, key=lambda group: group.mean["nmse"])
    text = f"{first.label} reconstructs best: NMSE {number('nmse', first)} at L0 {number('l0', first)}"
    if "ce_degradation" in first.mean:
        cheapest = min(done, key=lambda group: finite(group.mean.get("ce_degradation")))
        text += f", for a CE degradation of {number('ce_degradation', first)} nats per token"
        if cheapest is not first:
            text += f"; {cheapest.label} has the lowest, {number('ce_degradation', cheapest)}"
    return f"{text}.{tail}"


def cautions(groups: Sequence[Group]) -> list[str]:
    """What keeps the comparison from being as simple as the answer: noise, unequal L0, dead latents."""
    done = sorted((group for group in groups if math.isfinite(finite(group.mean.get("nmse")))), key=_nmse)
    said = []
    if len(done) > 1:
        lead = _nmse(done[1]) - _nmse(done[0])
        if len(done[0].points) == 1 and lead < NOISE * _nmse(done[0]):
            said.append(
                f"One seed each: the first two differ by {lead / _nmse(done[0]):.1%} in NMSE, which may be noise."
            )
    for k in sorted({group.points[0].config["k"] for group in done}):
        l0 = [group.mean["l0"] for group in done if group.points[0].config["k"] == k]
        if max(l0) > (1 + UNEQUAL) * min(l0):
            said.append(f"At k {k}, L0 is between {min(l0):.1f} and {max(l0):.1f}: more active latents, less error.")
    dead = [group for group in done if group.mean["dead_fraction"] > MANY_DEAD]
    if dead:
        names = "; ".join(f"{group.label} {number('dead_fraction', group)}" for group in dead[:4])
        said.append(f"Many latents are dead: {names}" + f" and {len(dead) - 4} more" * (len(dead) > 4) + ".")
    return said


def _nmse(group: Group) -> float:
    return finite(group.mean.get("nmse"))


def number(name: str, group: Group) -> str:
    """A mean as text, with its spread where there is one."""
    metric, spread = METRICS[name], group.spread.get(name)
    return metric.text(group.mean.get(name)) + (f" ± {metric.text(spread)}" if spread is not None else "")


def about(points: Sequence[Compared]) -> list[str]:
    """What all points are of: model, hook, text; how many there are, and how many activations they have seen."""
    said: dict[str, None] = {}
    for point in points:
        model, dataset = point.config["model"], point.config["dataset"]
        files = dataset["files"]
        text = dataset["name"] or ", ".join([files] if isinstance(files, str) else files or [])
        said.setdefault(
            f"{comparison.end_of_path(model['name'])}, {model['hook']}, on {comparison.end_of_path(text)}", None
        )
    done = [point.results for point in points if point.results is not None]
    line = f"{len(done)} of {len(points)} points done"
    for title, numbers in (
        ("activations of training", {results["training"]["tokens"] for results in done}),
        ("held out", {results["metrics"].get("held_out_tokens") for results in done}),
    ):
        known = sorted(number for number in numbers if number is not None)
        if known:
            line += f", {known[0]:,}" + f" to {known[-1]:,}" * (len(known) > 1) + f" {title}"
    return [*said, line]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def failures(points: Sequence[Compared], followed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What went wrong, a line each."""
    lines = [
        f"{point.name}: {point.state.state}" + f": {point.state.reason}" * bool(point.state.reason)
        for point in points
        if point.state.state == FAILED
    ]
    lines += [f"{task}: {known['state']}: {known['reason']}" for task, known in followed.items() if known["reason"]]
    return lines
