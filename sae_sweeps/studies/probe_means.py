"""Means of probes over data sets, with intervals over data sets, and the metrics of a study of an SAE."""

# U units (data sets), C columns

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_sweeps.evaluation.bootstrap import Draws, Interval, resample

ENDS = ("", "_low", "_high")
SCORES = ("auc", "accuracy", "f1")


def average_sets(columns: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Return the mean of each column over its data sets, by name, with a 95 % interval over data sets.

    Data sets are drawn again (evaluation/bootstrap.py), the same ones for all columns. Of one set there is no interval:
    its ends are NaN.
    """
    values_UC = np.array(list(columns.values()), dtype=np.float64).T
    units, means_C = len(values_UC), values_UC.mean(0)
    if units < 2:
        return {name: Interval(float(mean), np.nan, np.nan) for name, mean in zip(columns, means_C, strict=True)}
    draws_CR = (resample(values_UC) / units).T
    found = zip(columns, means_C, draws_CR, strict=True)
    return {name: Draws(float(mean), draws_R, units).find_interval() for name, mean, draws_R in found}


def summarise_sets(rows: Sequence[Mapping[str, Any]], ks: Sequence[int]) -> dict[str, Any]:
    """Return the metrics of a study, from a row per data set as `tasks/probe.py` writes it.

    For each k: means over data sets of the AUC, of its difference from that of the activations, each with the ends of
    its interval (None for one set), of the accuracy and of F1, and on how many sets the difference is clear.
    """
    columns = {"auc_activations": [row["activations"]["auc"] for row in rows]}
    counts: dict[str, int] = {}
    others: dict[str, float] = {}
    for place, k in enumerate(ks):
        found = [row["ks"][place] for row in rows]
        columns |= {f"auc_k{k}": [one["auc"] for one in found]}
        columns |= {f"difference_k{k}": [one["difference"] for one in found]}
        others |= {f"{name}_k{k}": float(np.mean([one[name] for one in found])) for name in ("accuracy", "f1")}
        counts |= {
            f"sets_better_k{k}": sum(one["difference_low"] > 0 for one in found),
            f"sets_worse_k{k}": sum(one["difference_high"] < 0 for one in found),
        }
    metrics: dict[str, Any] = {"sets": len(rows), "texts": sum(row["texts"] for row in rows)}
    for name, interval in average_sets(columns).items():
        ends = zip(ENDS, interval, strict=True)
        metrics |= {f"{name}{end}": None if np.isnan(value) else value for end, value in ends}
    return metrics | others | counts


def to_entry(name: str, interval: Interval) -> dict[str, float]:
    """Return an interval as entries of a row: its value, and its ends as `NAME_low` and `NAME_high`."""
    return {f"{name}{end}": value for end, value in zip(ENDS, interval, strict=True)}
