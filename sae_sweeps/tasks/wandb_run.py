"""Writes the W&B run of a point: while the point trains, or later from its files if W&B could not write it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sae_sweeps.config.identity import select_shown_settings
from sae_sweeps.evaluation.metrics import list_bounds
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.tracking.run import Run, start_run
from sae_sweeps.tracking.wandb_sync import is_incomplete, offline_runs
from sae_sweeps.training.curve import Line, read_lines

CURVE = "metrics.jsonl"


def start_point_run(point: Point, curve: Sequence[Line], versions: Mapping[str, Any], mode: str | None = None) -> Run:
    """Start the W&B run of a point, with the lines of its curve so far as the first steps.

    versions: commit and versions of packages (runtime/provenance.py)
    mode: tracking.mode; None: that of the point
    """
    config = point.config
    tracking = replace(config.tracking, mode=mode or config.tracking.mode)
    history = [wandb_metrics(line) for line in curve]
    settings = {**select_shown_settings(config), **versions}
    return start_run(tracking, point.folder, group=config.name, job_type="train", config=settings, history=history)


def wandb_metrics(line: Mapping[str, float]) -> dict[str, float]:
    """Return a line of the training curve with the names that W&B shows: "loss" becomes "train/loss"."""
    return {name if name == "tokens" else f"train/{name}": value for name, value in line.items()}


def log_results(run: Run, point: Point, tokens: int, metrics: Mapping[str, Any]) -> None:
    """Log the metrics of a finished point after `tokens` activations, and its SAE if tracking.artifacts is set.

    metrics: those of results.json, and the ends of their intervals
    """
    final = {f"eval/{name}": value for name, value in metrics.items()}
    run.log({"tokens": tokens, **final})
    run.summary(final)
    if point.config.tracking.artifacts:
        about = {**metrics, "config": select_shown_settings(point.config)}
        run.artifact(point.name, "model", point.folder / "sae", about)


def lacks_run(point: Point) -> bool:
    """Return whether a finished point is to have a W&B run, but has none on disk, or one that W&B stopped writing."""
    if point.config.tracking.mode == "off" or not point_state.is_done(point.folder):
        return False
    runs = offline_runs(point.folder)
    return not runs or any(map(is_incomplete, runs))


def rebuild_run(point: Point) -> bool:
    """Write the W&B run of a finished point from its curve and its results. Returns whether W&B wrote all of it."""
    results = point_state.read_results(point.folder)
    assert results is not None, "only finished points lack a run"
    run = start_point_run(point, read_lines(point.folder / CURVE), results["provenance"], "offline")
    metrics = {**results["metrics"], **list_bounds(results.get("intervals"))}
    log_results(run, point, results["training"]["tokens"], metrics)
    return run.finish()
