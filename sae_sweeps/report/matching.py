"""The report's table of pairs of SAEs whose latents were matched."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_sweeps.report.cells import Labels, format_cell, label_point
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable

DIFFERENCES = {"seed": "seed", "dataset.seed": "order of the data", "dict_size": "size", "model.hook": "hook"}
COLUMNS = {  # name in results.json -> title
    "paired_mean": "Cosine, one to one",
    "paired_mean_random": "Cosine, one to one, random directions",
    "paired_share": "Similar, one to one",
    "right_nearest_mean": "Cosine, second with nearest of first",
    "right_share": "Similar, second to first",
    "left_nearest_mean": "Cosine, first with nearest of second",
    "left_share": "Similar, first to second",
    "right_correlation_mean": "Correlation, second with first",
    "correlation_mean_chance": "Correlation, shuffled",
    "same_partner_share": "Nearest is most correlated",
}


def list_matched(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of matched pairs of SAEs, those that differ only in a seed first, then in size, then in hook.

    The first row has the titles; there is no other row without a study.
    """
    titles = ["First SAE", "Second SAE", "Differ in", "Start", "Active latents", *COLUMNS.values()]
    rows: dict[str, list[list[str]]] = {differing: [] for differing in DIFFERENCES}
    for study in studies:
        if study.task == "match":
            with skip_unreadable(study.folder):
                for pair in study.results["pairs"]:
                    rows[pair["differing"]].append(_list_pair(study, studies, pair, labels))
    return [titles, *(row for group in rows.values() for row in group)]


def _list_pair(
    study: FinishedStudy,
    studies: Sequence[FinishedStudy],
    pair: Mapping[str, Any],
    labels: Labels,
) -> list[str]:
    first, second = (label_point(labels, study, pair[side]) for side in ("left", "right"))
    return [
        first + describe_differences(study, studies),
        second,
        DIFFERENCES[pair["differing"]],
        "same initialisation" if pair["same_start"] else "other initialisation",
        f"{pair['left_active']:,} and {pair['right_active']:,}",
        *(format_cell(pair.get(name), ".1%" if name.endswith("share") else ".3f") for name in COLUMNS),
    ]
