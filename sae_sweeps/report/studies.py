"""Data of studies in the report: metrics and curves from results.json, histograms and samples from tables."""

import logging
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from sae_sweeps.config.differences import shorten_path
from sae_sweeps.config.synthetic import SYNTHETIC
from sae_sweeps.evaluation.metrics import METRICS, choose_metrics, remark_on
from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.blocks import round_digits
from sae_sweeps.report.families import list_swaps
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable
from sae_sweeps.report.neighbourhoods import collect_neighbourhoods
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.sweep.comparison import ComparedPoint, display_name, finite_or_inf
from sae_sweeps.sweep.result_files import FILES

log = logging.getLogger(__name__)

MAX_SCATTER_POINTS = 2500
BINS = 60  # bins of a histogram of cosines
MAX_ROC_POINTS = 200
# metrics of a table of evaluated SAEs, if they have them
EVALUATED = ("nmse", "fvu", "l0", "dead_fraction", "ce_degradation", "ce_recovered_mean", "mcc", "feature_f1")


def collect_studies(studies: Sequence[FinishedStudy]) -> dict[str, list[dict[str, Any]]]:
    """Return the plot data of all stitching and meta-SAE studies: task, as in PLOTTED -> a dictionary per study.

    Values from results.json are not rounded; values from tables are.
    """
    collected: dict[str, list[dict[str, Any]]] = {task: [] for task in PLOTTED}
    for study in studies:
        if study.task in collected:
            with skip_unreadable(study.folder):
                collected[study.task].append({**_common_data(study, studies), **PLOTTED[study.task](study, studies)})
    return collected


def list_evaluated(studies: Sequence[FinishedStudy]) -> list[list[str]]:
    """Return table rows of the SAEs that `task=evaluate` evaluated, lowest NMSE first. The first row has the titles."""
    evaluated = [study for study in studies if study.task == "evaluate"]
    known = {metric.name for metric in choose_metrics(study.results["metrics"] for study in evaluated)}
    metrics = [name for name in EVALUATED if name in known]
    rows: list[list[str]] = [["SAE", "model and hook", *(METRICS[name].title for name in metrics), "held-out tokens"]]
    found: list[tuple[float, list[str]]] = []
    for study in evaluated:
        with skip_unreadable(study.folder):
            sae, model = study.results["study"]["sae"], study.results["config"]["model"]
            name = display_name(sae["architecture"], sae["dict_size"], sae["k"])
            numbers = [METRICS[metric].text(study.results["metrics"].get(metric)) for metric in metrics]
            numbers.append(f"{study.results['metrics']['held_out_tokens']:,}")
            label = f"{name} ({sae['point']}{describe_differences(study, studies)})"
            place = SYNTHETIC if model["name"] == SYNTHETIC else f"{shorten_path(model['name'])}, {model['hook']}"
            row = [label, place, *numbers]
            found.append((finite_or_inf(study.results["metrics"].get("nmse")), row))
    return rows + [row for _, row in sorted(found, key=itemgetter(0))]


def list_remarks(studies: Sequence[FinishedStudy]) -> list[str]:
    """Return a sentence for each SAE that `task=evaluate` found to be no better than the mean of an activation."""
    evaluated = [study for study in studies if study.task == "evaluate"]
    found = {study.results["study"]["sae"]["point"]: study.results["metrics"] for study in evaluated}
    remarks = {name: remark_on(metrics) for name, metrics in found.items()}
    return [f"{name}: {remark}" for name, remark in remarks.items() if remark is not None]


def list_outdated(studies: Sequence[FinishedStudy], points: Sequence[ComparedPoint]) -> list[str]:
    """Return a sentence for each study of an SAE of a point that had other files than the point's results are about."""
    known = {(point.sweep.folder, point.name): (point.results or {}).get(FILES, {}) for point in points}
    found = []
    for study in studies:
        for sae in study.results["study"].values():
            if isinstance(sae, dict) and "point" in sae:
                now = known.get((study.sweep.folder, sae["point"]), {})
                then = {f"{SAE_FOLDER}/{name}": checksum for name, checksum in sae.get("files", {}).items()}
                if changed := [name for name in then if now.get(name, then[name]) != then[name]]:
                    problem = f"is about another {' and '.join(changed)} of {sae['point']} than the metrics here"
                    found.append(f"The study {study.task}/{study.folder.name} {problem}.")
    return found


def _common_data(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> dict[str, Any]:
    return {
        "key": study.folder.name,
        "sweep": study.sweep.name,
        "settings": study.settings,
        "differences": describe_differences(study, studies),
        "metrics": study.results["metrics"],
        "seconds": study.results["seconds"],
    }


def _stitching(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> dict[str, Any]:
    results = study.results
    latents = study.read_table("latents").to_pydict()
    return {
        "large": results["study"]["large"],
        "small": results["study"]["small"],
        "curves": results["curves"],
        "thresholds": results["thresholds"],
        "families": results["families"],
        "swaps": list_swaps(study, studies),
        "roc": _thin_roc(results["prediction"]),
        "cosines": histogram(np.asarray(latents["cosine"])),
        "changes": _sample_changes(latents, results["metrics"]["mse_small"]),
    }


def _meta_sae(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> dict[str, Any]:
    cosines: dict[str, list[float]] = {}
    meta_latents = study.read_table("meta_latents", ["used_by", "latents", "matches"])
    for matches in meta_latents["matches"].to_pylist():
        for match in matches or []:
            cosines.setdefault(match["point"], []).append(match["cosine"])
    sae = study.results["study"]["sae"]
    return {
        "sae": sae,
        "smaller": list(study.results["smaller"].values()),
        "per_latent": study.results["meta_latents_per_latent"],
        "matches": {point: histogram(np.asarray(values)) for point, values in cosines.items()},
        **_neighbourhoods(study, meta_latents, {sae["point"]: sae["dict_size"]}),
    }


def _meta_sizes(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> dict[str, Any]:
    results, meta_latents = study.results, study.read_table("meta_latents", ["used_by", "latents"])
    return {
        **{name: results[name] for name in ("sizes", "shared", "shared_shuffled")},
        **_neighbourhoods(study, meta_latents, {one["point"]: one["dict_size"] for one in results["sizes"]}),
    }


def _neighbourhoods(study: FinishedStudy, meta_latents: pa.Table, sizes: dict[str, int]) -> dict[str, Any]:
    """Return the names of the SAEs and the surroundings of some meta-latents. sizes: latents of each SAE, by name."""
    latents = study.read_table("latents", ["meta_latents"])
    return {"points": list(sizes), "neighbourhoods": collect_neighbourhoods(meta_latents, latents, sizes)}


# task of a study with charts -> function of it and of all studies, in which texts are found, that returns its plot data
PLOTTED: dict[str, Callable[[FinishedStudy, Sequence[FinishedStudy]], dict[str, Any]]] = {
    "stitch": _stitching,
    "meta_sae": _meta_sae,
    "meta_sizes": _meta_sizes,
}


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Return a histogram of cosines with BINS equal bins from the lowest value, or 0 if it is positive, to 1.

    Returns `first` (lower edge of the first bin), `width` (of a bin) and `counts`.
    """
    first = min(0.0, float(values.min(initial=0.0)))
    counts, edges = np.histogram(np.minimum(values, 1.0), bins=BINS, range=(first, 1.0))  # rounding errors
    return {
        "first": round_digits(float(edges[0])),
        "width": round_digits(float(edges[1] - edges[0])),
        "counts": counts.tolist(),
    }


def _thin_roc(predicted: dict[str, Any]) -> dict[str, list[float | None]]:
    rates = [predicted["false_positive_rate"], predicted["true_positive_rate"]]
    if not rates[0]:
        return {"x": [], "y": []}
    at = np.unique(np.linspace(0, len(rates[0]) - 1, MAX_ROC_POINTS).astype(int))
    x, y = ([round_digits(rate[i]) for i in at] for rate in rates)
    return {"x": x, "y": y}


def _sample_changes(latents: dict[str, list[Any]], mse_small: float) -> dict[str, Any]:
    """Return at most MAX_SCATTER_POINTS latents that are ever active: number, largest cosine, and change in MSE.

    latents: columns of the table of a stitching study; mse_small: MSE of the small SAE, by which changes are divided
    """
    active = np.flatnonzero(np.asarray(latents["frequency"]) > 0)
    sample = np.sort(
        np.random.default_rng(mix_seed(0, "latents in the report")).permutation(active)[:MAX_SCATTER_POINTS]
    )
    return {
        "latent": sample.tolist(),
        "cosine": [round_digits(latents["cosine"][at]) for at in sample],
        "change": [round_digits(divide(latents["mse_change"][at], mse_small)) for at in sample],
        "total": len(active),
    }
