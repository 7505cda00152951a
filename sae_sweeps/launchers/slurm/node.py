"""The program that runs in a Slurm job: trains a pack of points, or runs a task on the sweep.

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

from sae_sweeps.config import from_json, is_config
from sae_sweeps.config.tasks import STUDY_TASKS, SWEEP_TASKS
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.caches import provide_caches
from sae_sweeps.runtime.console import prepare_output
from sae_sweeps.runtime.descriptors import raise_limit
from sae_sweeps.runtime.held import LostSweep, holding_sweep
from sae_sweeps.runtime.paths import find_name_problem
from sae_sweeps.runtime.records import matches, read_record, write_record
from sae_sweeps.sweep import Point, Sweep, point_state, slurm_queue
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.point_state import FAILED
from sae_sweeps.sweep.rebuild import SUBMISSION
from sae_sweeps.sweep.sweep_state import POINTS, task_label
from sae_sweeps.training import checkpoints

log = logging.getLogger(__name__)

LOCK_PATIENCE = 1800.0  # seconds to wait for the lock of a point, which a process of an ended job may still hold
# A job gives up after 3 kills or 10 preemptions without progress: when the sum of these costs reaches MAX_COST
KILL_COST, PREEMPTION_COST, MAX_COST = 10, 3, 30
_is_pack = lambda pack: matches(pack, {str: is_config}) and not any(map(find_name_problem, pack))  # noqa: E731
_PLACES = {"directory": str, "sweep": str}
STARTS = {"progress": list, "fruitless": int, "end": int}
SHAPE = (
    {**_PLACES, "task": lambda task: task == POINTS, "packs": [_is_pack], "max_memory": (float, None)},
    {**_PLACES, "task": lambda task: task in SWEEP_TASKS, "packs": [dict], "configs": [is_config]},
)
EXIT_PREEMPTED = 75  # sysexits.h: temporary failure


def main(folder: Path) -> int:
    """Run the array task of this process: a pack of points, or a task on the sweep. Returns the exit code.

    folder: the submission's folder, with submission.json
    """
    logs.log_to_console()
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    submission = read_record(folder / SUBMISSION, SHAPE)
    if submission is None or index >= len(submission["packs"]):
        log.error("%s is missing or damaged; rerun the command that submitted this job", folder / SUBMISSION)
        return 1
    os.chdir(submission["directory"])
    signals.install_handlers(signal.SIGUSR1, signal.SIGTERM)
    sweep = Sweep(Path(submission["sweep"]))
    starts_file = folder / f"begun-{index}.json"
    owner = point_state.Owner.current()
    log.info("%s, requeued %d times so far", owner, owner.restarts)
    try:
        with holding_sweep(sweep.folder):
            if submission["task"] == POINTS:
                return _run_pack(sweep, submission["packs"][index], submission["max_memory"], starts_file)
            return _run_task(sweep, submission, index, starts_file)
    except LostSweep as lost:
        log.error("%s", lost)
        return 1
    except signals.Stopped as stop:
        refusal = slurm_queue.requeue(owner.job or "")
        result = "requeued the job" if refusal is None else f"did not requeue the job: {refusal}"
        log.warning("stopped because of the signal %s, and %s", stop, result)
        return EXIT_PREEMPTED


def _run_task(sweep: Sweep, submission: dict[str, Any], index: int, starts_file: Path) -> int:
    """Run a study, or another task on the whole sweep. Returns the exit code: 0, or 1 if the task failed.

    submission: the content of submission.json
    index: the index of the array task, which is also the index in `submission["configs"]`
    starts_file: see `_record_start`
    """
    from sae_sweeps.tasks.follow_ups import record_failure, run_follow_up
    from sae_sweeps.tasks.report import refresh

    task, label = submission["task"], task_label(submission, index)
    config = from_json(submission["configs"][index])
    studies = [file.parent for file in sorted((sweep.folder / task).glob(f"*/{point_state.LOCK}"))]
    if not _record_start([folder for study in studies for folder in (study, study / "control")], starts_file):
        reason = _describe_giving_up(starts_file)
        record_failure(sweep, label, reason)
        log.error("%s: %s", task, reason)
        refresh(sweep, config)
        return 1
    with _recording_preemption(starts_file):
        is_done = run_follow_up(task, sweep, config, label)
        if task in STUDY_TASKS:
            refresh(sweep, config)
    return 0 if is_done else 1


def _run_pack(sweep: Sweep, configs: dict[str, Any], max_memory: float | None, starts_file: Path) -> int:
    """Train the points of a pack. Returns the exit code: 0, or 1 if a point failed.

    configs: folder name -> configuration of each point
    max_memory: GiB that the pack may use; None: all free memory
    starts_file: see `_record_start`
    """
    from sae_sweeps.tasks.report import refresh
    from sae_sweeps.tasks.run_packs import run_packs

    points = [Point(from_json(config), sweep.folder / name) for name, config in configs.items()]
    if not _record_start([point.folder for point in points], starts_file):
        reason = _describe_giving_up(starts_file)
        for point in points:
            if not point_state.is_done(point.folder):
                point_state.write_state_if_unlocked(point.folder, FAILED, reason)
        log.error("%s", reason)
        refresh(sweep, points[0].config)
        return 1
    with _recording_preemption(starts_file):
        failures = run_packs(sweep, points, Limits.from_launcher(None, max_memory, LOCK_PATIENCE))
        refresh(sweep, points[0].config)  # writes the report only in the last job of the sweep
    return 1 if failures else 0


def _record_start(folders: Sequence[Path], starts_file: Path) -> bool:
    """Record in `starts_file` that the job starts. Returns False if too many starts ended without progress.

    Progress is a new checkpoint or a result in one of the folders. Until `_recording_preemption` has recorded a
    preemption, a start counts as killed.
    """
    progress = [[point_state.is_done(folder), checkpoints.newest_step(folder / "checkpoint")] for folder in folders]
    earlier = read_record(starts_file, STARTS) or {"progress": None}
    cost = earlier["fruitless"] + earlier["end"] if earlier["progress"] == progress else 0
    write_record(starts_file, {"progress": progress, "fruitless": cost, "end": KILL_COST})
    return cost < MAX_COST


@contextmanager
def _recording_preemption(starts_file: Path) -> Iterator[None]:
    """Record a preemption in `starts_file` if a signal stops the job in this context; it costs less than a kill."""
    try:
        yield
    except signals.Stopped:
        write_record(starts_file, {**(read_record(starts_file, STARTS) or {}), "end": PREEMPTION_COST})
        raise


def _describe_giving_up(starts_file: Path) -> str:
    """Return a message that the job ended after repeated kills or preemptions without progress, and what to do."""
    return (
        "gave up, because the job was killed or preempted too many times without a new checkpoint. The job's log in "
        f"{starts_file.parent} shows the reason. Give the job more time or memory, then rerun the original command"
    )


if __name__ == "__main__":
    prepare_output()
    raise_limit()
    provide_caches()
    sys.exit(main(Path(sys.argv[1])))
