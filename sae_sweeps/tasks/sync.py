"""Task `sync`: uploads W&B runs from disk, written on nodes without internet or interrupted by an outage.

Run the task again to upload runs that have been added since.
"""

import importlib.util
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import RUNNING
from sae_sweeps.sweep.sweep_state import read_states
from sae_sweeps.tracking.wandb_sync import Upload, is_uploaded, offline_runs, unreachable_reason

RUNS_PER_UPLOAD = 100  # runs per process `wandb beta sync`
SECONDS_BETWEEN_CHECKS = 10.0  # seconds between two checks whether the server still answers
MAX_FAILED_CHECKS = 3  # failed checks in a row after which an upload is stopped


def run(sweep: Sweep, config: Config) -> list[str]:
    """Upload all runs of the sweep that are not uploaded yet, except those of points that are still training.

    Returns a message if runs were not uploaded, else an empty list. A resumed point has one run from the first step on.
    """
    if importlib.util.find_spec("wandb") is None:
        return ["task=sync needs the package wandb, which is not installed. Fix: pip install wandb"]
    points = read_states(sweep).points
    running = [name for name, state in points.items() if state.state == RUNNING]
    folders = [sweep.folder / name for name in points if name not in running]
    folders += [study for task in STUDY_TASKS for study in sorted((sweep.folder / task).glob("*"))]
    folders.append(sweep.folder)  # of the run that compares the points
    pending = [run for folder in folders for run in offline_runs(folder) if not is_uploaded(run)]
    skipped = f"; skipped {pluralize(len(running), 'point')} still in training" * bool(running)
    console.print(f"{len(pending)} runs to upload{skipped}")
    if not pending:
        return []
    server = _server_url()
    if (reason := unreachable_reason(server)) is not None:
        return [f"W&B: {reason}. Nothing was uploaded; try again when the server answers"]
    for first in range(0, len(pending), RUNS_PER_UPLOAD):
        reason = _upload(pending[first : first + RUNS_PER_UPLOAD], server) or reason
    left = [run for run in pending if not is_uploaded(run)]
    if left:
        return [f"{len(left)} of {len(pending)} runs were not uploaded: {reason or 'W&B gave no reason'}"]
    console.print(f"uploaded {len(pending)} runs")
    return []


def _upload(runs: list[Path], server: str) -> str | None:
    """Upload runs to the W&B server (URL). Returns why the upload failed; None if it succeeded.

    `wandb beta sync` retries for hours when the server is down, so it is stopped after MAX_FAILED_CHECKS.
    """
    upload = Upload(runs)
    failed_checks: list[str] = []
    try:
        while not upload.wait(SECONDS_BETWEEN_CHECKS):
            reason = unreachable_reason(server)
            failed_checks = [*failed_checks, reason] if reason is not None else []
            if len(failed_checks) == MAX_FAILED_CHECKS:
                break
    finally:
        error = upload.close()
    return error or (failed_checks[-1] if failed_checks else None)


def _server_url() -> str:
    """Return the URL of the W&B server from the environment or from W&B's own settings."""
    import wandb

    return wandb.setup().settings.base_url
