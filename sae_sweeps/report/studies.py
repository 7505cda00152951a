"""Data of studies in the report: metrics and curves from results.json, histograms and samples from tables."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sae_sweeps.config.differences import find_differing, flatten, select_text_settings, shorten_path, shorten_paths
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.evaluation.metrics import METRICS, remark_on
from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.blocks import round_digits
from sae_sweeps.report.neighbourhoods import collect_neighbourhoods
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import read_table
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, display_name, finite_or_inf
from sae_sweeps.sweep.point_state import read_results
from sae_sweeps.sweep.result_files import FILES, find_changed

log = logging.getLogger(__name__)

MAX_SCATTER_POINTS = 2500
BINS = 60  # bins of a histogram of cosines
MAX_ROC_POINTS = 200


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study. `task`: such as "stitch"; `results`: the content of results.json in `folder`."""

    sweep: Sweep
    task: str
    folder: Path
    results: dict[str, Any]

    def point(self, role: str) -> str:
        """Return the folder name of the point whose SAE has the role sae, small or large in the study."""
        return self.results["study"][role]["point"]

    @property
    def settings(self) -> dict[str, Any]:
        """Return the task settings with which the study ran, such as k of a meta-SAE."""
        return self.results["study"]["settings"]

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the study's table NAME.parquet. `columns`: None for all.

        Raises: ValueError if the file is not the one that the study wrote; OSError or ArrowException if it is missing
        or damaged.
        """
        file = self.folder / f"{name}.parquet"
        if find_changed(self.folder, self.results, [file.name]):
            raise ValueError(f"{file.name} is missing, damaged or of another study: its checksum does not match")
        return read_table(file, columns)


def find_finished(sweep: Sweep) -> list[FinishedStudy]:
    """Return all studies in a sweep's folder that have a readable results.json, by task and folder name."""
    files = [(task, file) for task in STUDY_TASKS for file in sorted((sweep.folder / task).glob("*/results.json"))]
    return [
        FinishedStudy(sweep, task, file.parent, results)
        for task, file in files
        if (results := read_results(file.parent)) is not None and "study" in results
    ]


@contextmanager
def skip_unreadable(folder: Path) -> Iterator[None]:
    """Skip the rest of the `with` body and log a warning if the files of a study are missing or unreadable."""
    try:
        yield
    except Exception as error:  # a table or entry of any kind may be damaged, and Arrow has its own errors
        log.warning("the study in %s cannot be read (%s); the report leaves it out", folder, first_line(error))


def collect_studies(studies: Sequence[FinishedStudy]) -> dict[str, list[dict[str, Any]]]:
    """Return the plot data of all stitching and meta-SAE studies: task, as in PLOTTED -> a dictionary per study.

    Values from results.json are not rounded; values from tables are.
    """
    collected: dict[str, list[dict[str, Any]]] = {task: [] for task in PLOTTED}
    for study in studies:
        if study.task in collected:
            with skip_unreadable(study.folder):
                collected[study.task].append({**_common_data(study, studies), **PLOTTED[study.task](study)})
    return collected


def list_evaluated(studies: Sequence[FinishedStudy]) -> list[list[str]]:
    """Return table rows of the SAEs that `task=evaluate` evaluated, lowest NMSE first. The first row has the titles."""
    metrics = ("nmse", "fvu", "l0", "dead_fraction", "ce_degradation", "ce_recovered_mean")
    rows: list[list[str]] = [["SAE", "model and hook", *(METRICS[name].title for name in metrics), "held-out tokens"]]
    evaluated = [study for study in studies if study.task == "evaluate"]
    found: list[tuple[float, list[str]]] = []
    for study in evaluated:
        with skip_unreadable(study.folder):
            sae, model = study.results["study"]["sae"], study.results["config"]["model"]
            name = display_name(sae["architecture"], sae["dict_size"], sae["k"])
            numbers = [METRICS[metric].text(study.results["metrics"].get(metric)) for metric in metrics]
            numbers.append(f"{study.results['metrics']['held_out_tokens']:,}")
            label = f"{name} ({sae['point']}{describe_differences(study, studies)})"
            row = [label, f"{shorten_path(model['name'])}, {model['hook']}", *numbers]
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


def describe_differences(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> str:
    """Return the settings in which a study differs from other studies of the same SAEs, such as ", k 4, seed 1"."""
    saes = {role: sae for role, sae in study.results["study"].items() if isinstance(sae, dict) and "point" in sae}
    same_saes = [
        _flatten_settings(other)
        for other in studies
        if (other.sweep, other.task) == (study.sweep, study.task)
        and all(other.results["study"].get(role, {}).get("point") == sae["point"] for role, sae in saes.items())
    ]
    settings = _flatten_settings(study)
    return "".join(f", {key} {shorten_paths(settings[key])}" for key in find_differing([settings, *same_saes]))


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


def _meta_sizes(study: FinishedStudy) -> dict[str, Any]:
    results, meta_latents = study.results, study.read_table("meta_latents", ["used_by", "latents"])
    return {
        **{name: results[name] for name in ("sizes", "shared", "shared_shuffled")},
        **_neighbourhoods(study, meta_latents, {one["point"]: one["dict_size"] for one in results["sizes"]}),
    }


def _neighbourhoods(study: FinishedStudy, meta_latents: pa.Table, sizes: dict[str, int]) -> dict[str, Any]:
    """Return the names of the SAEs and the surroundings of some meta-latents. sizes: latents of each SAE, by name."""
    latents = study.read_table("latents", ["meta_latents"])
    return {"points": list(sizes), "neighbourhoods": collect_neighbourhoods(meta_latents, latents, sizes)}


# task of a study with charts -> function that returns its plot data
PLOTTED: dict[str, Callable[[FinishedStudy], dict[str, Any]]] = {
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
