"""Data of the points in the report: states, metrics, settings, training curves, summary and cautions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sae_sweeps.config.differences import flatten, shorten_path, shorten_paths
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.evaluation.metrics import CONCENTRATED, METRICS, remark_on
from sae_sweeps.report.blocks import round_digits
from sae_sweeps.sweep.comparison import ComparedPoint, Group, finite_or_inf
from sae_sweeps.sweep.point_state import DONE, FAILED
from sae_sweeps.sweep.result_files import CHANGED
from sae_sweeps.training.curve import read_lines

# limits beyond which the page shows a caution
SMALL_LEAD = 0.02  # relative difference of the two lowest NMSEs, with one seed each (caution if lower)
UNEQUAL_L0 = 0.05  # relative difference between the highest and the lowest L0
MANY_DEAD = 0.3  # fraction of dead latents
LISTED = 4  # points that a caution names

MAX_CURVE_LINES = 300  # number of lines to which training curves are thinned
CURVES = ("loss", "mse", "aux_loss", "l0", "dead_fraction", "threshold_mean", "lr")


def list_points(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return a dictionary per point, finished or not: key, label, state, settings, metrics and training results.

    Numbers from results.json are not rounded.
    """
    several = len({point.sweep.folder for group in groups for point in group.points}) > 1
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
                    "settings": collect_settings(point),
                }
            )
    return rows


def list_groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return label, mean and standard deviation of each metric for every group of points that differ only in seed."""
    return [{"label": group.label, "mean": group.mean, "spread": group.spread} for group in groups]


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


def split_shared_settings(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Remove the settings that are equal in all rows from the rows, in place. Returns the removed settings."""
    first = rows[0]["settings"] if rows else {}
    shared = {key: value for key, value in first.items() if all(row["settings"].get(key) == value for row in rows)}
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


def list_metrics() -> list[dict[str, Any]]:
    """Return a dictionary per metric: name, title, unit, decimals, whether low or high is better, and explanation."""
    return [asdict(metric) for metric in METRICS.values()]


def summarise(groups: Sequence[Group]) -> str:
    """Return the summary of the report: the SAE with the lowest NMSE at each k, and the number of unfinished points.

    Points of different models, hooks or texts get separate sentences, because they cannot be compared.
    """
    points = [point for group in groups for point in group.points]
    states = [point.state.state for point in points]
    missing = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != DONE)
    tail = f" {states.count(DONE)} of {len(points)} points are done; {missing}." if missing else ""
    comparable = _group_comparable(groups)
    if not points:
        return "There are no points. The studies below are about SAEs that were trained elsewhere."
    if not comparable:
        return f"No point is done yet.{tail}"
    several = len(comparable) > 1
    sentences = [
        f"On {data}: {_describe_best(ranked)}" if several else _describe_best(ranked)
        for data, ranked in comparable.items()
    ]
    return " ".join(sentences) + tail


def _group_comparable(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return the seed groups with a finite NMSE, lowest first, by a description of model, hook and text.

    Only groups that agree in all three can be compared.
    """
    comparable: dict[str, list[Group]] = {}
    for group in sorted(groups, key=_nmse):
        if math.isfinite(_nmse(group)):
            comparable.setdefault(_describe_data(group.points[0]), []).append(group)
    return comparable


def _describe_best(ranked: Sequence[Group]) -> str:
    ks = sorted({_k(group) for group in ranked})
    if len(ks) > 1:
        best = [next(group for group in ranked if _k(group) == k) for k in ks]
        described = [f"{one.label}, {format_mean('nmse', one)} at L0 {format_mean('l0', one)}" for one in best]
        return f"Lowest NMSE at each k: {'; '.join(described)}."
    first = ranked[0]
    text = f"Lowest NMSE: {first.label}, {format_mean('nmse', first)} at L0 {format_mean('l0', first)}"
    if "ce_degradation" in first.mean:
        text += f" and a CE degradation of {format_mean('ce_degradation', first)} nats per token"
        lowest = min(ranked, key=lambda group: finite_or_inf(group.mean.get("ce_degradation")))
        if lowest is not first:
            text += f". Lowest CE degradation: {lowest.label}, {format_mean('ce_degradation', lowest)} nats per token"
    return f"{text}."


def list_cautions(groups: Sequence[Group]) -> list[str]:
    """Return a sentence for each problem of the comparison: noise, unequal L0 or training lengths, dead latents.

    Others are about what the metrics were measured on: few activations with most of the variance, excluded tokens.
    """
    cautions = _list_changed(groups)
    comparable = _group_comparable(groups)
    if len(comparable) > 1:
        cautions.append("Points differ in model, hook or text; metrics can be compared only where all three are equal.")
    for group in (group for ranked in comparable.values() for group in ranked):
        if (remark := remark_on(group.mean)) is not None:
            cautions.append(f"{group.label}: {remark}")
    for ranked in comparable.values():
        for k in sorted({_k(group) for group in ranked}):
            cautions += _list_cautions_at_k(k, [group for group in ranked if _k(group) == k])
        tokens = sorted(
            {point.results["training"]["tokens"] for group in ranked for point in group.points if point.results}
        )
        if len(tokens) > 1:
            cautions.append(f"Training lengths differ: {tokens[0]:,} to {tokens[-1]:,} activations.")
        dead = [group for group in ranked if group.mean.get("dead_fraction", 0.0) > MANY_DEAD]
        if dead:
            cautions.append(f"Many latents are dead: {_list_labels(dead, 'dead_fraction')}.")
        cautions += _list_number_cautions(ranked)
    return list(dict.fromkeys(cautions))


def _list_changed(groups: Sequence[Group]) -> list[str]:
    """Return a sentence for each point whose SAE is no longer the one that its metrics are of."""
    return [
        f"{point.name}: {', '.join(point.changed)} {CHANGED}."
        for group in groups
        for point in group.points
        if point.changed
    ]


def _list_labels(groups: Sequence[Group], metric: str) -> str:
    """Return the labels of the first LISTED groups, each with the mean of a metric, and the number of the others."""
    names = "; ".join(f"{group.label} ({format_mean(metric, group)})" for group in groups[:LISTED])
    return names + f" and {len(groups) - LISTED} more" * (len(groups) > LISTED)


def _list_number_cautions(ranked: Sequence[Group]) -> list[str]:
    """Return a sentence on each reason to read the metrics of groups with care: what they were measured on."""
    cautions = []
    concentrated = [group for group in ranked if group.mean.get("top_variance_share", 0.0) >= CONCENTRATED]
    if concentrated:
        cautions.append(
            "1 % of the held-out activations hold most of the variance and so decide the FVU; the NMSE counts all "
            f"activations alike: {_list_labels(concentrated, 'top_variance_share')}."
        )
    done = [point for group in ranked for point in group.points if point.results is not None]
    earlier = [point for point in done if "held_out_left_out" not in point.metrics]
    if earlier and len(earlier) < len(done):
        cautions.append(
            f"{len(earlier)} of {len(done)} points were trained and evaluated before dataset.exclude existed, also on "
            "special tokens inside the text; their metrics may differ for that reason."
        )
    return cautions


def _list_cautions_at_k(k: int, ranked: Sequence[Group]) -> list[str]:
    cautions = []
    if len(ranked) > 1:
        first, second = ranked[:2]
        lead, spreads = _nmse(second) - _nmse(first), [first.spread.get("nmse"), second.spread.get("nmse")]
        known = [spread for spread in spreads if spread is not None]
        if known and lead < math.hypot(*known):
            cautions.append(f"At k {k}, the two lowest NMSEs differ by less than their standard deviation over seeds.")
        elif not known and lead < SMALL_LEAD * _nmse(first):
            relative = lead / _nmse(first)
            cautions.append(
                f"At k {k}, the two lowest NMSEs differ by {relative:.1%} with one seed each; this may be noise."
            )
    l0 = [group.mean["l0"] for group in ranked if "l0" in group.mean]
    if l0 and max(l0) > (1 + UNEQUAL_L0) * min(l0):
        cautions.append(f"At k {k}, L0 ranges from {min(l0):.1f} to {max(l0):.1f}; a higher L0 alone lowers the error.")
    return cautions


def _k(group: Group) -> int:
    return group.points[0].config["k"]


def _describe_data(point: ComparedPoint) -> str:
    """Return the model, hook and text of a point as one phrase: "MODEL, HOOK, on TEXT"."""
    model, dataset = point.config["model"], point.config["dataset"]
    files = dataset["files"]
    texts = [dataset["name"]] if dataset["name"] else [files] if isinstance(files, str) else files or []
    return f"{shorten_path(model['name'])}, {model['hook']}, on {', '.join(map(shorten_path, texts))}"


def _nmse(group: Group) -> float:
    return finite_or_inf(group.mean.get("nmse"))


def format_mean(name: str, group: Group) -> str:
    """Return the mean of the metric `name` as text, with ± standard deviation if there are several seeds."""
    metric, spread = METRICS[name], group.spread.get(name)
    return metric.text(group.mean.get(name)) + (f" ± {metric.text(spread)}" if spread is not None else "")


def describe_points(points: Sequence[ComparedPoint]) -> list[str]:
    """Return a line per model, hook and text, then a line with the number of points and of tokens.

    The list is empty if there are no points.
    """
    if not points:
        return []
    done = [point.results for point in points if point.results is not None]
    line = f"{len(done)} of {len(points)} points done"
    for title, numbers in (
        ("training activations", {results["training"]["tokens"] for results in done}),
        ("held-out tokens", {results["metrics"].get("held_out_tokens") for results in done}),
    ):
        known = sorted(number for number in numbers if number is not None)
        if known:
            line += f", {known[0]:,}" + f" to {known[-1]:,}" * (len(known) > 1) + f" {title}"
    return [*dict.fromkeys(map(_describe_data, points)), line]


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def list_failures(points: Sequence[ComparedPoint], outcomes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line per failed point and per follow-up task that failed or was not run.

    outcomes: "sweep: follow-up task" -> state, reason (None if it succeeded) and job
    """
    lines = [
        f"{point.name}: {point.state.state}" + f": {point.state.reason}" * bool(point.state.reason)
        for point in points
        if point.state.state == FAILED
    ]
    lines += [
        f"{task}: {outcome['state']}: {outcome['reason']}" for task, outcome in outcomes.items() if outcome["reason"]
    ]
    return lines
