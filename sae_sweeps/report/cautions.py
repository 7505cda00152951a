"""Sentences of the report on what limits the comparison of points."""

import math
from collections.abc import Sequence

from sae_sweeps.evaluation.metrics import CONCENTRATED, is_worse_than_mean, remark_on, remark_on_model
from sae_sweeps.report.points import format_mean, get_nmse, group_comparable
from sae_sweeps.sweep.comparison import Group
from sae_sweeps.sweep.result_files import CHANGED

# limits beyond which the page shows a caution
SMALL_LEAD = 0.02  # relative difference of the two lowest NMSEs, with one seed each (caution if lower)
UNEQUAL_L0 = 0.05  # relative difference between the highest and the lowest L0
MANY_DEAD = 0.3  # fraction of dead latents
LISTED = 4  # points that a caution names


def list_cautions(groups: Sequence[Group]) -> list[str]:
    """Return a sentence for each problem of the comparison: noise, unequal L0 or training lengths, dead latents.

    Others are about what the metrics were measured on: few activations with most of the variance, excluded tokens.
    """
    cautions = _list_changed(groups)
    comparable = group_comparable(groups)
    if len(comparable) > 1:
        cautions.append("Points differ in model, hook or text; metrics can be compared only where all three are equal.")
    for group in (group for ranked in comparable.values() for group in ranked):
        if (remark := remark_on(group.mean)) is not None:
            cautions.append(f"{group.label}: {remark}")
    for ranked in comparable.values():
        cautions += filter(None, [remark_on_model(group.mean) for group in ranked])
        found: dict[str, list[int]] = {}  # what there is to say -> each k of which it is true
        for k in sorted({_k(group) for group in ranked}):
            trained = [group for group in ranked if _k(group) == k and not is_worse_than_mean(group.mean)]
            for caution in _list_cautions_at_k(trained):
                found.setdefault(caution, []).append(k)
        cautions += [f"At k {', '.join(map(str, ks))}, {caution}." for caution, ks in found.items()]
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


def _list_cautions_at_k(ranked: Sequence[Group]) -> list[str]:
    """Return what to say on groups of one k, lowest NMSE first, without the k: on a small lead, and on unequal L0."""
    cautions = []
    if len(ranked) > 1:
        first, second = ranked[:2]
        lead, spreads = get_nmse(second) - get_nmse(first), [first.spread.get("nmse"), second.spread.get("nmse")]
        known = [spread for spread in spreads if spread is not None]
        if known and lead < math.hypot(*known):
            cautions.append("the two lowest NMSEs differ by less than their standard deviation over seeds")
        elif not known and lead < SMALL_LEAD * get_nmse(first):
            relative = lead / get_nmse(first)
            cautions.append(
                f"the two lowest NMSEs differ by {relative:.1%} with one seed each; other seeds may change the order"
            )
    l0 = [group.mean["l0"] for group in ranked if "l0" in group.mean]
    if l0 and max(l0) > (1 + UNEQUAL_L0) * min(l0):
        cautions.append(f"L0 ranges from {min(l0):.1f} to {max(l0):.1f}; a higher L0 alone lowers the error")
    return cautions


def _k(group: Group) -> int:
    return group.points[0].config["k"]
