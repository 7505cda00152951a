"""The report's tables of sparse probing: the mean AUC of each SAE, beside the activations, and of each data set."""

import json
import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sae_sweeps.evaluation.bootstrap import Interval
from sae_sweeps.report.cells import Labels, format_cell, label_point
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable
from sae_sweeps.studies.probe_means import ENDS, average_sets

ABOUT_PROBES = (
    "Texts of two classes are separated by a logistic regression on the k latents whose mean activations differ most "
    "between them (task=probe), beside one on all activations. AUC is the area under the ROC curve on texts that "
    "the classifiers have not seen, averaged over data sets; the brackets are 95 % intervals over data sets."
)
ABOUT_SETS = (
    "AUC of each data set, with the largest k, beside the classifier on activations (95 % intervals over texts)."
)
LATENTS_SHOWN = 3  # in a cell


def list_probed(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of probed SAEs, by group of the same data sets and settings, the best of each group first.

    The first row has the titles; there is no other row without a study.
    """
    groups = _group(studies)
    ks = sorted({k for group in groups for study in group for k in study.settings["ks"]})
    rows = [["SAE", "Data sets", *(f"AUC, k = {k}" for k in ks), "AUC, activations", "SAE less activations"]]
    rows[0] += ["Clearly worse, better sets", "Less the best SAE"]
    for group in groups:
        best = group[0]
        for study in group:
            with skip_unreadable(study.folder):
                metrics, last = study.results["metrics"], study.settings["ks"][-1]
                label = label_point(labels, study, study.point("sae")) + describe_differences(study, studies)
                worse, better = (metrics[f"sets_{side}_k{last}"] for side in ("worse", "better"))
                rows.append(
                    [
                        label,
                        f"{metrics['sets']}",
                        *(_format(metrics, f"auc_k{k}") for k in ks),
                        _format(metrics, "auc_activations"),
                        _format(metrics, f"difference_k{last}", sign="+"),
                        f"{worse} / {better}",
                        "best" if study is best else _compare(study, best),
                    ]
                )
    return rows


def list_probed_sets(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of data sets, each with the SAEs that were probed on it, and the latents that differ most.

    The first row has the titles; there is no other row without a study.
    """
    rows = [["Data set", "Texts", "Classes", "SAE", "k", "AUC", "AUC, activations", "SAE less activations", "Latents"]]
    for group in _group(studies):
        found: list[tuple[int, int, list[str]]] = []
        for number, study in enumerate(group):
            with skip_unreadable(study.folder):
                label = label_point(labels, study, study.point("sae")) + describe_differences(study, studies)
                for place, row in enumerate(study.results["sets"]):
                    found.append((place, number, _list_set(row, label)))
        rows += [row for _, _, row in sorted(found, key=itemgetter(0, 1))]
    return rows


def _list_set(row: dict[str, Any], label: str) -> list[str]:
    last = row["ks"][-1]
    latents = ", ".join(map(str, row["latents"][:LATENTS_SHOWN]))
    classes = f"{row['negative']!r}, {row['positive']!r}"
    numbers = [_format(last, "auc"), _format(row["activations"], "auc"), _format(last, "difference", sign="+")]
    return [row["name"], f"{row['texts']:,}", classes, label, f"{last['k']}", *numbers, latents]


def _group(studies: Sequence[FinishedStudy]) -> list[list[FinishedStudy]]:
    """Return the studies by model, hook, data sets and settings; in each group the one with the highest AUC first."""
    groups: dict[str, list[tuple[float, FinishedStudy]]] = {}
    for study in studies:
        if study.task == "probe":
            with skip_unreadable(study.folder):
                model, metrics = study.results["config"]["model"], study.results["metrics"]
                key = json.dumps([study.settings, model["name"], model["hook"]])
                groups.setdefault(key, []).append((metrics[f"auc_k{study.settings['ks'][-1]}"], study))
    return [[study for _, study in sorted(group, key=lambda one: -one[0])] for group in groups.values()]


def _compare(study: FinishedStudy, best: FinishedStudy) -> str:
    """Return the mean difference of the AUCs of two SAEs on the same data sets, with its interval."""
    pairs = zip(study.results["sets"], best.results["sets"], strict=True)
    differences = [one["ks"][-1]["auc"] - other["ks"][-1]["auc"] for one, other in pairs]
    return _format_interval(average_sets({"auc": differences})["auc"], "+")


def _format(values: dict[str, Any], name: str, sign: str = "") -> str:
    """Return a number of results.json with its interval; a dash if it has no such number."""
    value, low, high = (values.get(f"{name}{end}") for end in ENDS)
    ends = [math.nan if end is None else end for end in (low, high)]  # of one data set
    return format_cell(None, "") if value is None else _format_interval(Interval(value, *ends), sign)


def _format_interval(interval: Interval, sign: str) -> str:
    value, low, high = interval
    return f"{value:{sign}.3f}" + ("" if math.isnan(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]")
