"""Task `sync`: upload W&B runs from disk: offline runs of nodes without internet, and runs cut off by an outage.

Run it again to upload what has been added since.
"""

import importlib.util
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.runtime.console import console
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import RUNNING
from sae_sweeps.sweep.sweep_state import read_states
from sae_sweeps.tracking.wandb_sync import Upload, is_uploaded, offline_runs, unreachable_reason

RUNS_PER_UPLOAD = 100
SECONDS_BETWEEN_CHECKS = 10.0  # whether the server still answers
MAX_FAILED_CHECKS = 3  # in a row, before an upload is given up


def run(sweep: Sweep, config: Config) -> list[str]:
    """Upload every run that is not uploaded yet with W&B's own command. Returns why some runs were not uploaded.

    Points that are training are skipped. A resumed point has one run, with one id, from its first step on.
    """
    if importlib.util.find_spec("wandb") is None:
        return ["wandb is not installed: pip install wandb"]
    points = read_states(sweep).points
    running = [name for name, state in points.items() if state.state == RUNNING]
    folders = [sweep.folder / name for name in points if name not in running]
    folders += [study for task in STUDY_TASKS for study in sorted((sweep.folder / task).glob("*"))]
    folders.append(sweep.folder)  # the run that compares the points
    pending = [run for folder in folders for run in offline_runs(folder) if not is_uploaded(run)]
    skipped = f"; {len(running)} skipped, as they are still training" * bool(running)
    console.print(f"{len(pending)} runs to upload{skipped}")
    if not pending:
        return []
    server = _server_url()
    if (reason := unreachable_reason(server)) is not None:
        return [f"W&B: {reason}; nothing was uploaded"]
    for first in range(0, len(pending), RUNS_PER_UPLOAD):
        reason = _upload(pending[first : first + RUNS_PER_UPLOAD], server) or reason
    left = [run for run in pending if not is_uploaded(run)]
    if left:
        return [f"{len(left)} of {len(pending)} runs were not uploaded: {reason or 'W&B gives no reason'}"]
    console.print(f"uploaded {len(pending)} runs")
    return []


def _upload(runs: list[Path], server: str) -> str | None:
    """Upload runs. Returns why it failed, or None.

    W&B's command retries for hours when the server is down, so it is ended after MAX_FAILED_CHECKS.
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
    """Return the URL of the W&B server, from the environment or W&B's own settings."""
    import wandb

    return wandb.setup().settings.base_url
