"""Title, summary and facts at the top of the report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae_sweeps.activations.hooks import split_hook
from sae_sweeps.config.differences import shorten_path
from sae_sweeps.config.synthetic import SYNTHETIC
from sae_sweeps.evaluation.metrics import is_worse_than_mean
from sae_sweeps.report.points import format_mean, get_nmse, group_comparable
from sae_sweeps.sweep.comparison import ComparedPoint, Group, describe_data, distinguish_data, finite_or_inf
from sae_sweeps.sweep.point_state import DONE, FAILED


def make_title(names: Sequence[str], points: Sequence[ComparedPoint]) -> str:
    """Return the title of the report on sweeps, such as "SAE sweep ks: 4 points, layer 3 of MODEL"."""
    title = ", ".join(names)
    if not title.startswith("sweep"):
        title = f"sweep{'s' * (len(names) > 1)} {title}"
    places = {(shorten_path(point.config["model"]["name"]), point.config["model"]["hook"]) for point in points}
    counted = f"{len(points)} point{'s' * (len(points) != 1)}"
    return f"SAE {title}: {', '.join([counted, *_describe_places(sorted(places))])}"


def _describe_places(places: Sequence[tuple[str, str]]) -> list[str]:
    """Return "layer 3 of MODEL" for these models and hooks, as a list of at most one; "2 models" if there are two."""
    models = sorted({model for model, _ in places})
    if len(models) != 1:
        return [f"{len(models)} models"] if models else []
    if models == [SYNTHETIC]:
        return ["synthetic activations"]
    layers = {parts[0] if (parts := split_hook(hook)) else hook for _, hook in places}
    if len(layers) > 1:
        return [f"{len(layers)} layers of {models[0]}"]
    (layer,) = layers
    return [f"layer {layer} of {models[0]}" if isinstance(layer, int) else f"{layer} of {models[0]}"]


def summarise(groups: Sequence[Group]) -> str:
    """Return the summary of the report: the SAE with the lowest NMSE at each k, and the number of unfinished points.

    Points of different models, hooks or texts get separate sentences, because they cannot be compared.
    """
    points = [point for group in groups for point in group.points]
    states = [point.state.state for point in points]
    missing = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != DONE)
    tail = f" {states.count(DONE)} of {len(points)} points are done; {missing}." if missing else ""
    comparable = group_comparable(groups)
    if not points:
        return "There are no points. The studies below are about SAEs that were trained elsewhere."
    if not comparable:
        return f"No point is done yet.{tail}"
    several, start = len(comparable) > 1, distinguish_data([*comparable])
    sentences = [
        f"{start[data]}: {_describe_results(ranked)}" if several else _describe_results(ranked)
        for data, ranked in comparable.items()
    ]
    return " ".join(sentences) + tail


def _describe_results(ranked: Sequence[Group]) -> str:
    """Return sentences on groups that can be compared, lowest NMSE first: the lowest at each k, and what has no rival.

    An SAE that is alone at its k, or worse than the mean, is not the best of anything.
    """
    at_k: dict[int, list[Group]] = {}
    for group in sorted(ranked, key=_k):  # a stable sort: the lowest NMSE stays first
        if not is_worse_than_mean(group.mean):
            at_k.setdefault(_k(group), []).append(group)
    contests = {k: members for k, members in at_k.items() if len(members) > 1}
    alone = [members[0] for members in at_k.values() if len(members) == 1]
    end, further = _describe_ce(next(iter(at_k.values()))) if len(at_k) == 1 else ("", [])
    sentences = []
    if contests:
        where = f"k {next(iter(contests))}" if len(contests) == 1 else "each k" if not alone else _join_ks(contests)
        sentences.append(f"Lowest NMSE at {where}: {'; '.join(map(_describe_lowest, contests.values()))}{end}")
    if alone:
        where = "" if len(at_k) == 1 else " at each k" if not contests else f" at {_join_ks(map(_k, alone))}"
        sentences.append(
            f"One SAE{where}: {'; '.join(f'{one.label}, NMSE {_describe_error(one)}' for one in alone)}{end}"
        )
    sentences += further
    if diverged := [group.label for group in ranked if is_worse_than_mean(group.mean)]:
        sentences.append(f"Worse than the mean, with an NMSE of 1 or more: {'; '.join(diverged)}")
    return "".join(f"{sentence}. " for sentence in sentences).rstrip()


def _describe_lowest(members: Sequence[Group]) -> str:
    """Return label, NMSE and L0 of the first of groups by NMSE, and how many others have exactly its NMSE."""
    equal = sum(get_nmse(group) == get_nmse(members[0]) for group in members) - 1
    return f"{members[0].label}, {_describe_error(members[0])}" + f", and {equal} with the same NMSE" * bool(equal)


def _describe_ce(members: Sequence[Group]) -> tuple[str, list[str]]:
    """Return the end of a sentence with the first group's CE degradation, and a sentence if another's is the lowest."""
    if "ce_degradation" not in members[0].mean:
        return "", []
    end = f" and a CE degradation of {format_mean('ce_degradation', members[0])} nats per token"
    lowest = min(members, key=lambda group: finite_or_inf(group.mean.get("ce_degradation")))
    text = f"Lowest CE degradation: {lowest.label}, {format_mean('ce_degradation', lowest)} nats per token"
    return end, [text] * (lowest is not members[0])


def _describe_error(group: Group) -> str:
    return f"{format_mean('nmse', group)} at L0 {format_mean('l0', group)}"


def _join_ks(ks: Iterable[int]) -> str:
    return f"k {', '.join(map(str, ks))}"


def _k(group: Group) -> int:
    return group.points[0].config["k"]


def describe_points(points: Sequence[ComparedPoint]) -> list[str]:
    """Return a line per model, hook and text, then lines on the numbers of points and of tokens, and on the model.

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
    ce = sorted({f"{ce:.3f}" for results in done if (ce := results["metrics"].get("ce_model")) is not None}, key=float)
    own = [f"The model's own cross entropy on the held-out text: {' to '.join(ce[:1] + ce[1:][-1:])} nats per token"]
    return [*dict.fromkeys(map(describe_data, points)), line, *own * bool(ce)]


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
