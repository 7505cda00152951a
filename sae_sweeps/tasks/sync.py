"""Task `sync`: upload the W&B runs that nodes without internet wrote to disk. Given again, it uploads what is new."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from sae_sweeps.config import STUDY_TASKS, Config
from sae_sweeps.display import console
from sae_sweeps.slurm.watch import states_of
from sae_sweeps.states import RUNNING
from sae_sweeps.sweep import Sweep

AT_ONCE = 100  # runs handed to one `wandb sync`
MARK = ".synced"  # that it leaves beside a run's file


def run_sweep(sweep: Sweep, config: Config) -> list[str]:
    """Have W&B's own command upload every offline run that it has not uploaded; a point that is being trained waits.

    A point that was stopped and went on has one run, under one id, from its first step on. Returns why some are left.
    """
    if importlib.util.find_spec("wandb") is None:
        return ["wandb is not installed here: pip install wandb"]
    points = states_of(sweep).points
    running = [name for name, state in points.items() if state.state == RUNNING]
    runs = [sweep.folder / name for name in points if name not in running]
    runs += [study for task in STUDY_TASKS for study in sorted((sweep.folder / task).glob("*"))]
    waiting = [folder for run in runs for folder in _not_uploaded(run)]
    console.print(f"{len(waiting)} runs to upload" + f"; {len(running)} are still being written" * bool(running))
    for at in range(0, len(waiting), AT_ONCE):
        folders = [str(folder) for folder in waiting[at : at + AT_ONCE]]
        subprocess.run([sys.executable, "-m", "wandb", "sync", *folders], check=False)
    left = [folder for folder in waiting if folder in _not_uploaded(folder.parent.parent)]
    if left:
        said = "see above; a key is needed: `wandb login`, or WANDB_API_KEY"
        return [f"{len(left)} of {len(waiting)} runs were not uploaded ({said})"]
    if waiting:
        console.print(f"uploaded {len(waiting)} runs")
    return []


def _not_uploaded(point: Path) -> list[Path]:
    """The folders of a point's or study's offline runs that W&B has not marked as uploaded."""
    folders = sorted((point / "wandb").glob("offline-run-*"))
    return [folder for folder in folders if folder.is_dir() and not any(folder.glob(f"*.wandb{MARK}"))]
