"""Task `sync`: uploads W&B runs from disk, written on nodes without internet or interrupted by an outage.

Run the task again to upload runs that have been added since.
"""

import importlib.util
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.config.commands import format_command
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.point import IDENTITY
from sae_sweeps.sweep.point_state import RUNNING
from sae_sweeps.sweep.sweep_state import read_states
from sae_sweeps.sweep.wandb_environment import find_problem
from sae_sweeps.tasks.wandb_run import lacks_run, rebuild_run
from sae_sweeps.tracking.comparison_run import IDENTITY as COMPARISON
from sae_sweeps.tracking.wandb_sync import (
    SILENT,
    Upload,
    describe_addresses,
    is_uploaded,
    offline_runs,
    unreachable_reason,
)

RUNS_PER_UPLOAD = 100  # runs per process `wandb beta sync`
SECONDS_BETWEEN_CHECKS = 5.0  # seconds between two checks whether the server still answers and runs are uploaded
MAX_FAILED_CHECKS = 3  # refused connections in a row after which an upload is stopped
STALL_SECONDS = 60.0  # seconds without an uploaded run after which an upload to a failing or silent server is stopped
SHOWN_RUNS = 3  # runs that a message names
NO_REASON = "W&B gave no reason"


def run(sweep: Sweep, config: Config) -> list[str]:
    """Upload all runs of the sweep that are not uploaded yet, except those of points that are still training.

    The run of a finished point that W&B could not write is made from the point's files first. Returns messages if runs
    were not uploaded, else an empty list. A resumed point has one run from the first step on.
    """
    if importlib.util.find_spec("wandb") is None:
        return ["task=sync needs the package wandb, which is not installed. Fix: pip install wandb"]
    if (problem := find_problem()) is not None:
        return [str(problem)]
    points = read_states(sweep).points
    running = [name for name, state in points.items() if state.state == RUNNING]
    failures = _rebuild_runs([point for point in sweep.points() if point.name not in running])
    folders = [sweep.folder / name for name in points if name not in running]
    folders += [study for task in STUDY_TASKS for study in sorted((sweep.folder / task).glob("*"))]
    folders.append(sweep.folder)  # of the run that compares the points
    pending = [run for folder in folders for run in offline_runs(folder) if not is_uploaded(run)]
    skipped = f"; skipped {pluralize(len(running), 'point')} still in training" * bool(running)
    console.print(f"{len(pending)} runs to upload{skipped}")
    if not pending:
        return failures
    server, again = _server_url(), format_command("sync", sweep.name, sweep.folder.parent)
    if (reason := unreachable_reason(server)) is not None:
        return [*failures, f"W&B: {reason}. Nothing was uploaded. When the server answers, again: {again}"]
    reasons: dict[Path, str] = {}
    addresses: list[str] = []
    for first in range(0, len(pending), RUNS_PER_UPLOAD):
        runs = pending[first : first + RUNS_PER_UPLOAD]
        reasons |= _upload(runs, server, addresses)
        if not any(map(is_uploaded, runs)):
            break  # the server refuses all; the next runs would take as long
    if (links := describe_addresses(addresses)) is not None:
        console.print(links, markup=False, soft_wrap=True)
    left = [run for run in pending if not is_uploaded(run)]
    if not left:
        console.print(f"uploaded {len(pending)} runs")
        return failures
    failures.append(f"{len(left)} of {len(pending)} runs were not uploaded to {server}. Again: {again}")
    return failures + _describe_reasons(left, reasons)


def _rebuild_runs(points: Sequence[Point]) -> list[str]:
    """Write the missing W&B runs of finished points from their files. Returns a message for each that W&B refused."""
    lacking = [point for point in points if lacks_run(point)]
    if not lacking:
        return []
    failures = [
        f"{point.name}: W&B could not make the run from the point's files (see the warning above)"
        for point in lacking
        if not rebuild_run(point)
    ]
    import wandb

    wandb.teardown()  # waits until W&B's service has written the files
    console.print(f"made {pluralize(len(lacking) - len(failures), 'missing run')} from the files of finished points")
    return failures


def _upload(runs: list[Path], server: str, addresses: list[str]) -> dict[Path, str]:
    """Upload runs to the W&B server (URL). Returns what went wrong, by run; empty if nothing did.

    addresses: a list to which the addresses of the runs are added

    The upload is stopped if the server cannot be reached for MAX_FAILED_CHECKS, or if it answers requests with errors
    or not at all and no run has been uploaded for STALL_SECONDS: a server that is only slow gets this time.
    """
    upload = Upload(runs)
    failed_checks: list[str] = []
    done, progress = 0, time.monotonic()
    try:
        while not upload.wait(SECONDS_BETWEEN_CHECKS):
            if (count := sum(map(is_uploaded, runs))) > done:
                done, progress = count, time.monotonic()
            reason = unreachable_reason(server)
            failed_checks = [*failed_checks, reason] if reason is not None else []
            is_gone = len(failed_checks) >= MAX_FAILED_CHECKS and not failed_checks[-1].endswith(SILENT)
            is_failing = bool(failed_checks) or upload.is_refused()
            if is_gone or (is_failing and time.monotonic() - progress > STALL_SECONDS):
                break
    finally:
        error = upload.close()
        addresses += upload.addresses
    general = (failed_checks[-1] if failed_checks else None) or error or NO_REASON
    return {run: upload.reasons.get(run, general) for run in runs if not is_uploaded(run)}


def _describe_reasons(runs: Sequence[Path], reasons: Mapping[Path, str]) -> list[str]:
    """Return one message per reason why runs were not uploaded, with the runs and a way out."""
    by_reason: dict[str, list[Path]] = {}
    for run in runs:
        reason = reasons.get(run, "they were not tried, because the server refused the runs before them")
        by_reason.setdefault(reason, []).append(run.parent.parent)
    lines = []
    for reason, folders in by_reason.items():
        names = ", ".join(folder.name for folder in folders[:SHOWN_RUNS])
        more = f" and {len(folders) - SHOWN_RUNS} more" * (len(folders) > SHOWN_RUNS)
        lines.append(f"{names}{more}: {reason}. Fix: {_find_fix(reason, folders[0])}")
    return lines


def _find_fix(reason: str, folder: Path) -> str:
    """Return a way out for the reason why the run in a folder was not uploaded."""
    words = reason.lower()
    status = (re.findall(r"(?:http|error|status|code)\D{0,3}([45]\d\d)\b", words) or [""])[0]
    if status == "409" or "deleted" in words:
        return f"to upload it as a new run, {_find_renewal(folder)}"
    if status in ("401", "403") or "api key" in words or "not authenticated" in words or "permission" in words:
        return "check WANDB_API_KEY (or run `wandb login`), tracking.entity and tracking.project"
    if status in ("400", "404", "422"):
        return "check tracking.entity, tracking.project and WANDB_BASE_URL"
    return "run task=sync again when the server takes runs again; nothing is lost until then"


def _find_renewal(folder: Path) -> str:
    """Return how the run in the folder of a point, a study or a sweep gets a new id."""
    if folder.parent.name in STUDY_TASKS:
        return f"`{shlex.join(['rm', '-r', str(folder)])}`, then run the study again"
    is_sweep = (folder / COMPARISON).exists()
    command = shlex.join(
        ["rm", "-r", *(str(folder / name) for name in ("wandb", COMPARISON if is_sweep else IDENTITY))]
    )
    return f"`{command}`, then task=report and task=sync" if is_sweep else f"`{command}`, then task=sync again"


def _server_url() -> str:
    """Return the URL of the W&B server from the environment or from W&B's own settings."""
    import wandb

    return wandb.setup().settings.base_url
