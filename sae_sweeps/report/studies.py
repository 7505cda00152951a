"""What the page tells of studies: the numbers and curves of their results.json, and what their tables hold, in bins."""

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
from sae_sweeps.report.blocks import rounded
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import read_json
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import display_name, finite_or_inf

log = logging.getLogger(__name__)

DOTS = 2500  # of a scatter plot
BINS = 60
ROC_POINTS = 200


@dataclass(frozen=True)
class Finished:
    """A study that is done: its sweep, task and folder, and what its results.json holds."""

    sweep: Sweep
    task: str
    folder: Path
    results: dict[str, Any]

    def point(self, part: str) -> str:
        """The folder name of the SAE that plays a part: sae, small or large."""
        return self.results["study"][part]["point"]

    @property
    def settings(self) -> dict[str, Any]:
        return self.results["study"]["settings"]

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        return pq.read_table(self.folder / f"{name}.parquet", columns=list(columns) if columns else None)


def finished(sweep: Sweep) -> list[Finished]:
    """The studies of a sweep that are done."""
    files = [(task, file) for task in STUDY_TASKS for file in sorted((sweep.folder / task).glob("*/results.json"))]
    return [Finished(sweep, task, file.parent, found) for task, file in files if (found := read_json(file)) is not None]


@contextmanager
def without_it(folder: Path) -> Iterator[None]:
    """What cannot be read of a study, because files are missing, damaged or of another version, is left out."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError) as error:  # of Arrow too
        log.warning("%s cannot be read (%s); the report goes on without it", folder, first_line(error))


def studies_data(found: Sequence[Finished]) -> dict[str, list[dict[str, Any]]]:
    """Stitching and meta-SAE studies. Numbers of results.json are as they are there, those of tables rounded."""
    told: dict[str, list[dict[str, Any]]] = {"stitch": [], "meta_sae": []}
    for study in found:
        if study.task in told:
            with without_it(study.folder):
                of_its_own = _stitching(study) if study.task == "stitch" else _meta_sae(study)
                told[study.task].append({**_named(study, found), **of_its_own})
    return told


def evaluated(found: Sequence[Finished]) -> list[list[str]]:
    """A table of the SAEs that `task=evaluate` has measured, best NMSE first, with what it is of in its first row."""
    titles = [metric.title for metric in METRICS.values()]
    rows: list[list[str]] = [["SAE", "model and hook", *titles, "held-out tokens"]]
    done = [study for study in found if study.task == "evaluate"]
    for study in sorted(done, key=lambda study: finite_or_inf(study.results["metrics"].get("nmse"))):
        sae, model = study.results["study"]["sae"], study.results["config"]["model"]
        name = (
            f"{display_name(sae['architecture'], sae['dict_size'], sae['k'])} ({sae['point']}{differs(study, found)})"
        )
        numbers = [metric.text(study.results["metrics"].get(key)) for key, metric in METRICS.items()]
        numbers.append(f"{study.results['metrics']['held_out_tokens']:,}")
        rows.append([name, f"{shorten_path(model['name'])}, {model['hook']}", *numbers])
    return rows


def _named(study: Finished, among: Sequence[Finished]) -> dict[str, Any]:
    return {
        "key": study.folder.name,
        "sweep": study.sweep.name,
        "settings": study.settings,
        "differs": differs(study, among),
        "metrics": study.results["metrics"],
        "seconds": study.results["seconds"],
    }


def differs(study: Finished, among: Sequence[Finished]) -> str:
    """The settings in which it differs from other studies of the same SAEs, in words."""
    saes = {part: one for part, one in study.results["study"].items() if isinstance(one, dict) and "point" in one}
    alike = [
        _settings_and_text(one)
        for one in among
        if (one.sweep, one.task) == (study.sweep, study.task)
        and all(one.results["study"].get(part, {}).get("point") == sae["point"] for part, sae in saes.items())
    ]
    mine = _settings_and_text(study)
    return "".join(f", {key} {mine[key]}" for key in find_differing([mine, *alike]))


def _settings_and_text(study: Finished) -> dict[str, Any]:
    return flatten(study.settings) | select_text_settings(study.results["config"])


def _stitching(study: Finished) -> dict[str, Any]:
    results = study.results
    latents = study.table("latents").to_pydict()
    return {
        "large": results["study"]["large"],
        "small": results["study"]["small"],
        "curves": results["curves"],
        "thresholds": results["thresholds"],
        "families": results["families"],
        "roc": _thinned_roc(results["prediction"]),
        "cosines": histogram(np.asarray(latents["cosine"])),
        "changes": _changes(latents, results["metrics"]["mse_small"]),
    }


def _meta_sae(study: Finished) -> dict[str, Any]:
    cosines: dict[str, list[float]] = {}
    for matches in study.table("meta_latents", ["matches"]).to_pydict()["matches"]:
        for match in matches or []:
            cosines.setdefault(match["point"], []).append(match["cosine"])
    return {
        "sae": study.results["study"]["sae"],
        "smaller": list(study.results["smaller"].values()),
        "per_latent": study.results["meta_latents_per_latent"],
        "matches": {point: histogram(np.asarray(values)) for point, values in cosines.items()},
    }


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Counts of cosines in equal bins, from the lowest (or 0, if that is lower) to 1."""
    first = min(0.0, float(values.min(initial=0.0)))
    counts, edges = np.histogram(np.minimum(values, 1.0), bins=BINS, range=(first, 1.0))  # some are rounded above 1
    return {"first": rounded(float(edges[0])), "width": rounded(float(edges[1] - edges[0])), "counts": counts.tolist()}


def _thinned_roc(predicted: dict[str, Any]) -> dict[str, list[float | None]]:
    rates = [predicted["false_positive_rate"], predicted["true_positive_rate"]]
    at = np.unique(np.linspace(0, len(rates[0]) - 1, ROC_POINTS).astype(int)) if rates[0] else np.array([], dtype=int)
    x, y = ([rounded(rate[i]) for i in at] for rate in rates)
    return {"x": x, "y": y}


def _changes(latents: dict[str, list[Any]], mse_small: float) -> dict[str, Any]:
    """Some latents that are active at all: which, their largest cosine, and the change in MSE over that of the small
    SAE."""
    active = np.flatnonzero(np.asarray(latents["frequency"]) > 0)
    some = np.sort(np.random.default_rng(0).permutation(active)[:DOTS])
    return {
        "latent": some.tolist(),
        "cosine": [rounded(latents["cosine"][at]) for at in some],
        "change": [rounded(latents["mse_change"][at] / mse_small) for at in some],
        "of": len(active),
    }
