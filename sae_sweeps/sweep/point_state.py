"""The state of a point, read from its own folder, so that it is correct even after a crash.

<point>/results.json    exists if the point is done
<point>/state.json      the process that trains or trained the point, and why it failed or stopped
<point>/.lock           held by the process that trains the point; released by the system when that process ends
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_sweeps.config import is_config
from sae_sweeps.runtime import held, signals
from sae_sweeps.runtime.leftovers import remove_leftovers
from sae_sweeps.runtime.records import matches, read_record, warn_damaged, write_record
from sae_sweeps.sweep.result_files import FILES, compute_checksums
from sae_sweeps.training.checkpoints import newest_step
from sae_sweeps.training.curve import last_line

LOCK_RETRY_SECONDS = 1.0  # seconds between two checks for a signal while another process holds a lock
RESULTS, STATE, LOCK = "results.json", "state.json", ".lock"
WAITING, QUEUED, RUNNING, INTERRUPTED, FAILED = "waiting", "queued", "running", "interrupted", "failed"
DONE, PRUNED = "done", "pruned"
STATES = (WAITING, QUEUED, RUNNING, INTERRUPTED, FAILED, DONE, PRUNED)

ENDED_WELL = (DONE, PRUNED)

NOTE_SHAPE = {
    "state": lambda value: value in STATES,
    "reason": (str, None),
    "owner": {"host": str, "pid": int, "job": (str, None), "restarts": int},
}
_SAE_SHAPE = {"point": str, "architecture": str, "dict_size": (int, None), "k": (int, None)}
RESULTS_SHAPE = (
    {
        "point": dict,
        "metrics": lambda metrics: matches(metrics, {str: (float, None)}) and {"nmse", "l0"} <= metrics.keys(),
        "training": {"tokens": int, "steps": int, "tokens_per_second": (float, None)},
        "config": dict,
        "provenance": dict,
    },
    {
        "study": lambda study: (
            matches(study, {"task": str, "name": str, "settings": dict})
            and all(matches(role, _SAE_SHAPE) for role in study.values() if isinstance(role, dict) and "point" in role)
        ),
        "metrics": dict,
        "config": is_config,
    },
)


@dataclass(frozen=True)
class Owner:
    """A process that trains points: host, pid, Slurm job (None outside Slurm), and number of restarts of that job."""

    host: str
    pid: int
    job: str | None
    restarts: int

    @classmethod
    def current(cls) -> "Owner":
        """Return the owner that describes the current process."""
        return cls(socket.gethostname(), os.getpid(), this_job(), int(os.environ.get("SLURM_RESTART_COUNT", 0)))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", job {self.job}" if self.job else "")


def this_job() -> str | None:
    """Return the Slurm job id of the current process as squeue prints it: 12, or 12_3 for an array task.

    None outside Slurm.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


@dataclass(frozen=True)
class Note:
    """The content of a point's state.json: state, the reason for that state, and the process that wrote it."""

    state: str
    reason: str | None
    owner: Owner


def write_state(folder: Path, state: str, reason: str | None = None) -> None:
    """Write state.json into a point's folder: the state, the reason for it, and the current process as the owner."""
    owner = asdict(Owner.current())
    write_record(folder / STATE, {"state": state, "reason": reason, "owner": owner, "time": time.time()})


def read_note(folder: Path) -> Note | None:
    """Return the content of state.json in a point's folder; None if the file is missing or damaged."""
    content = read_record(folder / STATE, NOTE_SHAPE)
    if content is None:
        return None
    owner = Owner(**{field.name: content["owner"][field.name] for field in fields(Owner)})
    return Note(content["state"], content["reason"], owner)


def is_done(folder: Path) -> bool:
    """Return whether the folder of a point or study has a readable results.json."""
    return read_results(folder) is not None


def write_results(folder: Path, content: Mapping[str, Any]) -> None:
    """Write results.json, which marks a point or study as done, with the checksums of the files beside it."""
    write_record(folder / RESULTS, {**content, FILES: compute_checksums(folder)})


def read_results(folder: Path, *, is_copy: bool = False) -> dict[str, Any] | None:
    """Return the content of results.json in the folder of a point or study.

    None if it is missing, damaged, or of another point or study.
    is_copy: whether the folder may be a copy with another name than the point or study
    """
    results: dict[str, Any] | None = read_record(folder / RESULTS, RESULTS_SHAPE, "" if is_copy else None)
    if results is None or is_copy or FILES in results or _has_name(folder.name, results):
        return results
    warn_damaged(folder / RESULTS, "belongs to another")
    return None


def _has_name(name: str, results: Mapping[str, Any]) -> bool:
    """Return whether results may be those of the point or study with this name, by what they say of themselves.

    For results of earlier versions, which have no seal. Points are named by architecture, size, k and seed.
    """
    if "study" in results:
        return results["study"]["name"] == name
    about = results["point"]
    if not {"architecture", "dict_size", "k", "seed"} <= about.keys():
        return True
    return name.startswith(f"{about['architecture']}-{about['dict_size']}-k{about['k']}-seed{about['seed']}-")


def write_state_if_unlocked(folder: Path, state: str, reason: str) -> None:
    """Write state.json into a point's folder, unless another process holds the lock of the point.

    For a process that does not hold the lock either, such as one that schedules points.
    """
    held.make_folder(folder)
    with contextlib.suppress(Timeout), FileLock(folder / LOCK, blocking=False):
        write_state(folder, state, reason)


def acquire(lock: FileLock, deadline: float, on_wait: Callable[[float], None] = lambda seconds_left: None) -> bool:
    """Acquire the lock of a point or study, and create the folder if there is none. Returns False if another process
    still holds the lock at `deadline`.

    The operating system releases the lock when the process that holds it ends, even if that process is killed. While
    the lock is held, files are written only into the folder that was locked (runtime/held.py). What killed processes
    have left in it is removed.

    deadline: seconds on the clock of time.monotonic
    on_wait: called once with the seconds left until the deadline, if the lock is not free at first
    Raises: Stopped if the current process receives a signal to stop while it waits.
    """
    folder, has_waited = Path(lock.lock_file).parent, False
    held.make_folder(folder)
    while True:
        try:
            lock.acquire(timeout=LOCK_RETRY_SECONDS)
            break
        except Timeout:
            signals.raise_if_stopped()
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                return False
            if not has_waited:
                has_waited = True
                on_wait(seconds_left)
    held.hold(folder, Path(lock.lock_file))
    remove_leftovers(folder, is_locked=True)
    return True


def release(lock: FileLock) -> None:
    """Release the lock of a point or study. A lock that is not held is ignored."""
    if lock.is_locked:
        held.release(Path(lock.lock_file).parent)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a point. Needs only read access; takes a shared lock for a moment."""
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@dataclass(frozen=True)
class State:
    """The state of a point or follow-up task.

    state: waiting, queued, running, interrupted, failed, done or pruned
    reason: why the point or task is in this state; None if nothing needs explaining
    job: id of the Slurm job; None outside Slurm
    requeued: how often the job was requeued
    step: number of finished training steps
    """

    state: str
    reason: str | None = None
    job: str | None = None
    requeued: int = 0
    step: int = 0


def read_state(folder: Path) -> State:
    """Return the state of a point from the files in its folder alone, without asking Slurm."""
    if is_done(folder):
        return State(DONE)
    note = read_note(folder)
    if note is None:
        return State(WAITING)
    owner, step = note.owner, steps_done(folder)
    if note.state == RUNNING and not is_locked(folder):
        return State(INTERRUPTED, f"{owner} ended before the point was done", owner.job, owner.restarts, step)
    return State(note.state, note.reason, owner.job, owner.restarts, step)


def steps_done(folder: Path) -> int:
    """Return the number of finished training steps, from the training curve and the newest checkpoint of a point."""
    line = last_line(folder / "metrics.jsonl")
    return max(0 if line is None else line["step"], newest_step(folder / "checkpoint"))
