"""Task `sync`: upload the W&B runs that nodes without internet wrote to disk. Given again, it uploads what is new."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from sae_sweeps.display import console
from sae_sweeps.slurm.watch import states_of
from sae_sweeps.states import RUNNING
from sae_sweeps.sweep import Sweep

AT_ONCE = 100  # runs handed to one `wandb sync`
MARK = ".synced"  # that it leaves beside a run's file


def run_sweep(sweep: Sweep) -> bool:
    """Have W&B's own command upload every offline run that it has not uploaded; a point that is being trained waits.

    A point that was stopped and went on has one run, under one id, from its first step on. False if one is left over.
    """
    if importlib.util.find_spec("wandb") is None:
        console.print("wandb is not installed here: pip install wandb", style="red")
        return False
    points = states_of(sweep).points
    running = [name for name, state in points.items() if state.state == RUNNING]
    waiting = [folder for name in points if name not in running for folder in _not_uploaded(sweep.folder / name)]
    console.print(f"{len(waiting)} runs to upload" + f"; {len(running)} are still being written" * bool(running))
    for at in range(0, len(waiting), AT_ONCE):
        folders = [str(folder) for folder in waiting[at : at + AT_ONCE]]
        subprocess.run([sys.executable, "-m", "wandb", "sync", *folders], check=False)
    left = [folder for folder in waiting if folder in _not_uploaded(folder.parent.parent)]
    if left:
        said = "see above; a key is needed: `wandb login`, or WANDB_API_KEY"
        console.print(f"{len(left)} of {len(waiting)} runs were not uploaded ({said})", style="red", markup=False)
    elif waiting:
        console.print(f"uploaded {len(waiting)} runs")
    return not left


def _not_uploaded(point: Path) -> list[Path]:
    """The folders of a point's offline runs that W&B has not marked as uploaded."""
    folders = sorted((point / "wandb").glob("offline-run-*"))
    return [folder for folder in folders if folder.is_dir() and not any(folder.glob(f"*.wandb{MARK}"))]
