"""What the page tells of studies: the numbers and curves of their results.json, and what their tables hold, in bins."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sae_sweeps.files import read_json
from sae_sweeps.report.blocks import rounded
from sae_sweeps.sweep import Sweep

log = logging.getLogger(__name__)

TABLES = {
    "stitch": ("latents.parquet",),
    "meta_sae": ("latents.parquet", "meta_latents.parquet"),
    "latents": ("latents.parquet",),
}
DOTS = 2500  # of a scatter plot
BINS = 60
ROC_POINTS = 200


def finished(sweep: Sweep, task: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of the studies of a task that are done, and their results; without what has lost its tables."""
    for file in sorted((sweep.folder / task).glob("*/results.json")):
        if (results := read_json(file)) is None:
            continue
        if missing := [name for name in TABLES[task] if not (file.parent / name).is_file()]:
            log.warning("%s has no %s; the report goes on without this study", file.parent, ", ".join(missing))
            continue
        yield file.parent, results


def stitching_data(sweep: Sweep) -> list[dict[str, Any]]:
    """A stitching study each. Numbers of results.json are as they are there, those of tables rounded."""
    found = []
    for folder, results in finished(sweep, "stitch"):
        latents = pq.read_table(folder / "latents.parquet").to_pydict()
        found.append(
            {
                **_named(sweep, folder, results),
                "large": results["study"]["large"],
                "small": results["study"]["small"],
                "curves": results["curves"],
                "thresholds": results["thresholds"],
                "families": results["families"],
                "roc": _thinned_roc(results["prediction"]),
                "cosines": histogram(np.asarray(latents["cosine"])),
                "changes": _changes(latents, results["metrics"]["mse_small"]),
            }
        )
    return found


def meta_sae_data(sweep: Sweep) -> list[dict[str, Any]]:
    """A meta-SAE study each."""
    found = []
    for folder, results in finished(sweep, "meta_sae"):
        rows = pq.read_table(folder / "meta_latents.parquet", columns=["matches"]).to_pydict()["matches"]
        cosines: dict[str, list[float]] = {}
        for matches in rows:
            for match in matches or []:
                cosines.setdefault(match["point"], []).append(match["cosine"])
        found.append(
            {
                **_named(sweep, folder, results),
                "sae": results["study"]["sae"],
                "smaller": list(results["smaller"].values()),
                "per_latent": results["meta_latents_per_latent"],
                "matches": {point: histogram(np.asarray(values)) for point, values in cosines.items()},
            }
        )
    return found


def _named(sweep: Sweep, folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": folder.name,
        "sweep": sweep.name,
        "settings": results["study"]["settings"],
        "metrics": results["metrics"],
        "seconds": results["seconds"],
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
