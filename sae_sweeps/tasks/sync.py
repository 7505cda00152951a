"""Task `sync`: upload the W&B runs that are on disk: of nodes without internet, and what an outage left.

Given again, it uploads what is new.
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

AT_ONCE = 100  # runs handed to one upload
LOOK_SECONDS = 10.0  # between two looks at whether the server is still there
LOOKS = 3  # in vain, one after the other, are enough


def run(sweep: Sweep, config: Config) -> list[str]:
    """Have W&B's own command upload every run that it has not uploaded; a point that is being trained waits.

    A point that was stopped and went on has one run, under one id, from its first step on. Returns why some are left.
    """
    if importlib.util.find_spec("wandb") is None:
        return ["wandb is not installed here: pip install wandb"]
    points = read_states(sweep).points
    running = [name for name, state in points.items() if state.state == RUNNING]
    of = [sweep.folder / name for name in points if name not in running]
    of += [study for task in STUDY_TASKS for study in sorted((sweep.folder / task).glob("*"))]
    of.append(sweep.folder)  # its comparison
    waiting = [run for folder in of for run in offline_runs(folder) if not is_uploaded(run)]
    console.print(f"{len(waiting)} runs to upload" + f"; {len(running)} are still being written" * bool(running))
    if not waiting:
        return []
    server = _server()
    if (why := unreachable_reason(server)) is not None:
        return [f"W&B: {why}; nothing was uploaded"]
    for at in range(0, len(waiting), AT_ONCE):
        why = _upload(waiting[at : at + AT_ONCE], server) or why
    left = [run for run in waiting if not is_uploaded(run)]
    if left:
        return [f"{len(left)} of {len(waiting)} runs were not uploaded: {why or 'W&B does not say why'}"]
    console.print(f"uploaded {len(waiting)} runs")
    return []


def _upload(runs: list[Path], server: str) -> str | None:
    """Returns what went wrong. W&B's command goes on trying for hours where a server is gone; this one does not."""
    upload = Upload(runs)
    gone: list[str] = []
    try:
        while not upload.wait(LOOK_SECONDS):
            why = unreachable_reason(server)
            gone = [*gone, why] if why is not None else []
            if len(gone) == LOOKS:
                break
    finally:
        said = upload.close()
    return said or (gone[-1] if gone else None)


def _server() -> str:
    """The address of the W&B server, from the environment or W&B's own settings."""
    import wandb

    return wandb.setup().settings.base_url
