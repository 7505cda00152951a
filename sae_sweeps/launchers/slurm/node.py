"""What a job runs: its pack of points, or a task that follows.

`python -m sae_sweeps.launchers.slurm.node SUBMISSION_FOLDER`
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sae_sweeps.config import from_json
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.launchers.slurm.submission import SUBMISSION
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.sweep import Point, Sweep, point_state, slurm_queue
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.point_state import FAILED
from sae_sweeps.sweep.sweep_state import POINTS, task_label
from sae_sweeps.training import checkpoints

log = logging.getLogger(__name__)

PATIENCE = 1800.0  # seconds that a job waits for a point of a process that has outlived its own job
KILL, STOP, FRUITLESS = 10, 3, 30  # beginnings from which nothing came: three killed, or ten stopped, are enough
STOPPED = 75  # exit code: to be gone on with


def main(folder: Path) -> int:
    """Run the array task that this process is of. Returns the exit code."""
    submission = read_json(folder / SUBMISSION)
    os.chdir(submission["directory"])
    logs.log_to_console()
    signals.install_handlers(signal.SIGUSR1, signal.SIGTERM)
    sweep, index = Sweep(Path(submission["sweep"])), int(os.environ["SLURM_ARRAY_TASK_ID"])
    this = point_state.Owner.current()
    log.info("%s, requeued %d times", this, this.restarts)
    try:
        if submission["task"] == POINTS:
            begun = folder / f"begun-{index}.json"
            return _run_pack(sweep, submission["packs"][index], submission["max_memory"], begun)
        return _run_task(sweep, submission, index, folder / f"begun-{index}.json")
    except signals.Stopped as stop:
        why_not = slurm_queue.requeue(this.job or "")
        log.warning("%s: stopped; %s", stop, "requeued" if why_not is None else f"not requeued here: {why_not}")
        return STOPPED


def _run_task(sweep: Sweep, submission: dict[str, Any], index: int, begun: Path) -> int:
    from sae_sweeps.tasks.follow_ups import follow_up, give_up
    from sae_sweeps.tasks.report import refresh

    task, label = submission["task"], task_label(submission, index)
    studies = [file.parent for file in sorted((sweep.folder / task).glob(f"*/{point_state.LOCK}"))]
    if _in_vain([folder for study in studies for folder in (study, study / "control")], begun):
        why = _vain(begun)
        give_up(sweep, label, why)
        log.error("%s: %s", task, why)
        refresh(sweep, from_json(submission["configs"][index]))
        return 1
    config = from_json(submission["configs"][index])
    with _stops_noted(begun):
        done = follow_up(task, sweep, config, label)
        if task in STUDY_TASKS:
            refresh(sweep, config)
    return 0 if done else 1


def _run_pack(sweep: Sweep, configs: dict[str, Any], max_memory: float | None, begun: Path) -> int:
    from sae_sweeps.tasks.report import refresh
    from sae_sweeps.tasks.run_packs import run_packs

    points = [Point(from_json(config), sweep.folder / name) for name, config in configs.items()]
    if _in_vain([point.folder for point in points], begun):
        why = _vain(begun)
        for point in points:
            if not point_state.is_done(point.folder):
                point_state.write_state_if_unlocked(point.folder, FAILED, why)
        log.error("%s. Too little time or memory? The same command tries again", why)
        refresh(sweep, points[0].config)
        return 1
    with _stops_noted(begun):
        failures = run_packs(sweep, points, Limits.from_launcher(None, max_memory, PATIENCE))
        refresh(sweep, points[0].config)  # the last job of a sweep writes its report
    return 1 if failures else 0


@contextmanager
def _stops_noted(begun: Path) -> Iterator[None]:
    try:
        yield
    except signals.Stopped:
        write_json(begun, {**read_json(begun), "end": STOP})
        raise


def _vain(begun: Path) -> str:
    return f"the job began again and again and saved nothing new; its log in {begun.parent} tells how it ended"


def _in_vain(folders: Sequence[Path], begun: Path) -> bool:
    """Whether the latest beginnings of this job have brought its points or studies no further."""
    progress = [[point_state.is_done(folder), checkpoints.newest_step(folder / "checkpoint")] for folder in folders]
    earlier = read_json(begun) or {"progress": None}
    fruitless = earlier["fruitless"] + earlier["end"] if earlier["progress"] == progress else 0
    write_json(begun, {"progress": progress, "fruitless": fruitless, "end": KILL})
    return fruitless >= FRUITLESS


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
