"""What the page tells of points: states, metrics, settings and training curves."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.report.blocks import rounded
from sae_sweeps.sweep import comparison
from sae_sweeps.sweep.comparison import ComparedPoint, Group, finite_or_inf
from sae_sweeps.sweep.point_state import DONE, FAILED
from sae_sweeps.training.curve import read_lines

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
                    "key": point_key(point.name, point.sweep.name if several else None),
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
                    "settings": point_settings(point),
                }
            )
    return rows


def point_key(point: str, sweep: str | None) -> str:
    """The name of a point in links: its folder, with that of its sweep where there are several."""
    return point if sweep is None else f"{sweep}/{point}"


def groups_data(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Points that differ in their seed alone, with means and spreads."""
    return [{"label": group.label, "mean": group.mean, "spread": group.spread} for group in groups]


def point_settings(point: ComparedPoint) -> dict[str, str]:
    """All that decides the result of a point, and what computed it, as text by full name."""
    settings = {
        key: _text(value) for key, value in comparison.flatten(select_result_settings(dict(point.config))).items()
    }
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


def read_curve(point: ComparedPoint) -> dict[str, list[float | None]] | None:
    """The training curve of a point, thinned out; None if it has none."""
    lines = read_lines(point.sweep.folder / point.name / "metrics.jsonl")
    if not lines:
        return None
    stride = -(-len(lines) // CURVE_POINTS)
    kept = lines[::-1][::stride][::-1]  # the last line always
    names = [name for name in CURVES if name in kept[-1]]
    drawn = {name: [rounded(line.get(name)) for line in kept] for name in names}
    return {"tokens": [line["tokens"] for line in kept], **drawn}


def metrics_data() -> list[dict[str, Any]]:
    return [asdict(metric) for metric in METRICS.values()]


def answer(groups: Sequence[Group]) -> str:
    """The sweep in a few words: what reconstructs best at each k, at what L0 and cost; and what is missing. Points of
    different models, hooks or texts are not ranked against each other."""
    points = [point for group in groups for point in group.points]
    states = [point.state.state for point in points]
    missing = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != DONE)
    tail = f" {states.count(DONE)} of {len(points)} points are done; {missing}." if missing else ""
    comparable = _comparable(groups)
    if not points:
        return "It has no points of its own; its studies are of SAEs from elsewhere."
    if not comparable:
        return f"No point is done yet.{tail}"
    several = len(comparable) > 1
    said = [f"On {where}: {_best(some)}" if several else _best(some) for where, some in comparable.items()]
    return " ".join(said) + tail


def _comparable(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Those that are done, best NMSE first, by what their metrics are of."""
    found: dict[str, list[Group]] = {}
    for group in sorted(groups, key=_nmse):
        if math.isfinite(_nmse(group)):
            found.setdefault(_of_what(group.points[0]), []).append(group)
    return found


def _best(done: Sequence[Group]) -> str:
    ks = sorted({_k(group) for group in done})
    if len(ks) > 1:
        best = [next(group for group in done if _k(group) == k) for k in ks]
        return (
            "Lowest NMSE: "
            + "; ".join(f"{one.label}, {number('nmse', one)} at L0 {number('l0', one)}" for one in best)
            + "."
        )
    first = done[0]
    text = f"{first.label} reconstructs best: NMSE {number('nmse', first)} at L0 {number('l0', first)}"
    if "ce_degradation" in first.mean:
        cheapest = min(done, key=lambda group: finite_or_inf(group.mean.get("ce_degradation")))
        text += f", for a CE degradation of {number('ce_degradation', first)} nats per token"
        if cheapest is not first:
            text += f"; {cheapest.label} has the lowest, {number('ce_degradation', cheapest)}"
    return f"{text}."


def cautions(groups: Sequence[Group]) -> list[str]:
    """What keeps the comparison from being as simple as the answer: noise, unequal L0 or training, dead latents."""
    said = []
    comparable = _comparable(groups)
    if len(comparable) > 1:
        said.append("Models, hooks or texts differ: their numbers are not to be compared with each other.")
    for done in comparable.values():
        for k in sorted({_k(group) for group in done}):
            alike = [group for group in done if _k(group) == k]
            said += _of_a_k(k, alike)
        tokens = sorted(
            {point.results["training"]["tokens"] for group in done for point in group.points if point.results}
        )
        if len(tokens) > 1:
            said.append(f"Points were trained on {tokens[0]:,} to {tokens[-1]:,} activations.")
        dead = [group for group in done if group.mean.get("dead_fraction", 0.0) > MANY_DEAD]
        if dead:
            names = "; ".join(f"{group.label} {number('dead_fraction', group)}" for group in dead[:4])
            said.append(f"Many latents are dead: {names}" + f" and {len(dead) - 4} more" * (len(dead) > 4) + ".")
    return list(dict.fromkeys(said))


def _of_a_k(k: int, done: Sequence[Group]) -> list[str]:
    said = []
    if len(done) > 1:
        first, second = done[:2]
        lead, spreads = _nmse(second) - _nmse(first), [first.spread.get("nmse"), second.spread.get("nmse")]
        known = [spread for spread in spreads if spread is not None]
        if known and lead < math.hypot(*known):
            said.append(f"At k {k} the first two differ in NMSE by less than their seeds do.")
        elif not known and lead < NOISE * _nmse(first):
            relative = lead / _nmse(first)
            said.append(f"At k {k} the first two, of one seed each, differ by {relative:.1%} in NMSE: it may be noise.")
    l0 = [group.mean["l0"] for group in done if "l0" in group.mean]
    if l0 and max(l0) > (1 + UNEQUAL) * min(l0):
        said.append(f"At k {k}, L0 is between {min(l0):.1f} and {max(l0):.1f}: more active latents, less error.")
    return said


def _k(group: Group) -> int:
    return group.points[0].config["k"]


def _of_what(point: ComparedPoint) -> str:
    """What its metrics are of: model, hook, text."""
    model, dataset = point.config["model"], point.config["dataset"]
    files = dataset["files"]
    text = dataset["name"] or ", ".join([files] if isinstance(files, str) else files or [])
    return f"{comparison.shorten_path(model['name'])}, {model['hook']}, on {comparison.shorten_path(text)}"


def _nmse(group: Group) -> float:
    return finite_or_inf(group.mean.get("nmse"))


def number(name: str, group: Group) -> str:
    """A mean as text, with its spread where there is one."""
    metric, spread = METRICS[name], group.spread.get(name)
    return metric.text(group.mean.get(name)) + (f" ± {metric.text(spread)}" if spread is not None else "")


def about(points: Sequence[ComparedPoint]) -> list[str]:
    """What all points are of: model, hook, text; how many there are, and how many activations they have seen."""
    said = dict.fromkeys(map(_of_what, points))
    if not points:
        return []
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


def failures(points: Sequence[ComparedPoint], followed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What went wrong, a line each."""
    lines = [
        f"{point.name}: {point.state.state}" + f": {point.state.reason}" * bool(point.state.reason)
        for point in points
        if point.state.state == FAILED
    ]
    lines += [f"{task}: {known['state']}: {known['reason']}" for task, known in followed.items() if known["reason"]]
    return lines
