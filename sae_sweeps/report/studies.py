"""Studies in the page: metrics and curves of their results.json, and histograms and samples of their tables."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sae_sweeps.config.differences import find_differing, flatten, select_text_settings, shorten_path
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.report.blocks import round_digits
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import read_json
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import display_name, finite_or_inf

log = logging.getLogger(__name__)

MAX_SCATTER_POINTS = 2500
BINS = 60
MAX_ROC_POINTS = 200


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study: its sweep, task and folder, and the contents of its results.json."""

    sweep: Sweep
    task: str
    folder: Path
    results: dict[str, Any]

    def point(self, role: str) -> str:
        """Return the point folder's name of the SAE in a role: sae, small or large."""
        return self.results["study"][role]["point"]

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the study's task."""
        return self.results["study"]["settings"]

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one of the study's Parquet tables. Raises: OSError if it is missing, ArrowException if damaged."""
        return pq.read_table(self.folder / f"{name}.parquet", columns=list(columns) if columns else None)


def find_finished(sweep: Sweep) -> list[FinishedStudy]:
    """Return the finished studies of a sweep."""
    files = [(task, file) for task in STUDY_TASKS for file in sorted((sweep.folder / task).glob("*/results.json"))]
    return [
        FinishedStudy(sweep, task, file.parent, results)
        for task, file in files
        if (results := read_json(file)) is not None
    ]


@contextmanager
def skip_unreadable(folder: Path) -> Iterator[None]:
    """Skip the rest of the block if the study's files are missing, damaged or of another version, and log it."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError) as error:  # Arrow's errors are among them
        log.warning("%s cannot be read (%s); the report leaves it out", folder, first_line(error))


def collect_studies(studies: Sequence[FinishedStudy]) -> dict[str, list[dict[str, Any]]]:
    """Collect the data of the stitching and meta-SAE studies, by task.

    Values of results.json keep all their digits; values of tables are rounded.
    """
    collected: dict[str, list[dict[str, Any]]] = {"stitch": [], "meta_sae": []}
    for study in studies:
        if study.task in collected:
            with skip_unreadable(study.folder):
                details = _stitching(study) if study.task == "stitch" else _meta_sae(study)
                collected[study.task].append({**_common_data(study, studies), **details})
    return collected


def list_evaluated(studies: Sequence[FinishedStudy]) -> list[list[str]]:
    """List the SAEs that `task=evaluate` evaluated, lowest NMSE first. The first row has the titles."""
    metrics = ("nmse", "fvu", "l0", "dead_fraction", "ce_degradation", "ce_recovered_mean")
    rows: list[list[str]] = [["SAE", "model and hook", *(METRICS[name].title for name in metrics), "held-out tokens"]]
    evaluated = [study for study in studies if study.task == "evaluate"]
    for study in sorted(evaluated, key=lambda study: finite_or_inf(study.results["metrics"].get("nmse"))):
        sae, model = study.results["study"]["sae"], study.results["config"]["model"]
        name = display_name(sae["architecture"], sae["dict_size"], sae["k"])
        numbers = [METRICS[metric].text(study.results["metrics"].get(metric)) for metric in metrics]
        numbers.append(f"{study.results['metrics']['held_out_tokens']:,}")
        label = f"{name} ({sae['point']}{describe_differences(study, studies)})"
        rows.append([label, f"{shorten_path(model['name'])}, {model['hook']}", *numbers])
    return rows


def _common_data(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> dict[str, Any]:
    return {
        "key": study.folder.name,
        "sweep": study.sweep.name,
        "settings": study.settings,
        "differences": describe_differences(study, studies),
        "metrics": study.results["metrics"],
        "seconds": study.results["seconds"],
    }


def describe_differences(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> str:
    """List the settings in which a study differs from the other studies of the same SAEs: ", k 4, seed 1"."""
    saes = {role: sae for role, sae in study.results["study"].items() if isinstance(sae, dict) and "point" in sae}
    same_saes = [
        _flatten_settings(other)
        for other in studies
        if (other.sweep, other.task) == (study.sweep, study.task)
        and all(other.results["study"].get(role, {}).get("point") == sae["point"] for role, sae in saes.items())
    ]
    settings = _flatten_settings(study)
    return "".join(f", {key} {settings[key]}" for key in find_differing([settings, *same_saes]))


def _flatten_settings(study: FinishedStudy) -> dict[str, Any]:
    return flatten(study.settings) | select_text_settings(study.results["config"])


def _stitching(study: FinishedStudy) -> dict[str, Any]:
    results = study.results
    latents = study.read_table("latents").to_pydict()
    return {
        "large": results["study"]["large"],
        "small": results["study"]["small"],
        "curves": results["curves"],
        "thresholds": results["thresholds"],
        "families": results["families"],
        "roc": _thin_roc(results["prediction"]),
        "cosines": histogram(np.asarray(latents["cosine"])),
        "changes": _sample_changes(latents, results["metrics"]["mse_small"]),
    }


def _meta_sae(study: FinishedStudy) -> dict[str, Any]:
    cosines: dict[str, list[float]] = {}
    for matches in study.read_table("meta_latents", ["matches"]).to_pydict()["matches"]:
        for match in matches or []:
            cosines.setdefault(match["point"], []).append(match["cosine"])
    return {
        "sae": study.results["study"]["sae"],
        "smaller": list(study.results["smaller"].values()),
        "per_latent": study.results["meta_latents_per_latent"],
        "matches": {point: histogram(np.asarray(values)) for point, values in cosines.items()},
    }


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Count cosines in equal bins from the lowest value (at most 0) to 1."""
    first = min(0.0, float(values.min(initial=0.0)))
    counts, edges = np.histogram(np.minimum(values, 1.0), bins=BINS, range=(first, 1.0))  # rounding can exceed 1
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
    """Sample latents that are ever active: their numbers, largest cosines, and change in MSE / MSE of the small SAE."""
    active = np.flatnonzero(np.asarray(latents["frequency"]) > 0)
    sample = np.sort(np.random.default_rng(0).permutation(active)[:MAX_SCATTER_POINTS])
    return {
        "latent": sample.tolist(),
        "cosine": [round_digits(latents["cosine"][at]) for at in sample],
        "change": [round_digits(latents["mse_change"][at] / mse_small) for at in sample],
        "total": len(active),
    }
