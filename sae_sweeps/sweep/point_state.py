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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.training.checkpoints import newest_step
from sae_sweeps.training.curve import last_line

LOCK_RETRY_SECONDS = 1.0  # between two checks for a signal while another process holds a lock
RESULTS, STATE, LOCK = "results.json", "state.json", ".lock"
WAITING, QUEUED, RUNNING, INTERRUPTED, FAILED, DONE = "waiting", "queued", "running", "interrupted", "failed", "done"


@dataclass(frozen=True)
class Owner:
    """A process that trains points: host and pid, its Slurm job (None outside Slurm) and how often that restarted."""

    host: str
    pid: int
    job: str | None
    restarts: int

    @classmethod
    def current(cls) -> "Owner":
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), this_job(), int(os.environ.get("SLURM_RESTART_COUNT", 0)))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", job {self.job}" if self.job else "")


def this_job() -> str | None:
    """Return this process's Slurm job as squeue writes its id: 12, or 12_3 for an array task. None outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


@dataclass(frozen=True)
class Note:
    """The content of state.json."""

    state: str
    reason: str | None
    owner: Owner


def write_state(folder: Path, state: str, reason: str | None = None) -> None:
    """Write state.json: the state, the reason for it, and this process as the owner."""
    write_json(
        folder / STATE, {"state": state, "reason": reason, "owner": asdict(Owner.current()), "time": time.time()}
    )


def read_note(folder: Path) -> Note | None:
    """Return the content of the point's state.json; None if it is missing or cannot be read."""
    content = read_json(folder / STATE)
    return None if content is None else Note(content["state"], content["reason"], Owner(**content["owner"]))


def is_done(folder: Path) -> bool:
    """Return whether a point or study has readable results."""
    return read_json(folder / RESULTS) is not None


def write_state_if_unlocked(folder: Path, state: str, reason: str) -> None:
    """Write state.json from a process that does not hold the point's lock, unless another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Timeout), FileLock(folder / LOCK, blocking=False):
        write_state(folder, state, reason)


def acquire(lock: FileLock, deadline: float, on_wait: Callable[[float], None] = lambda seconds_left: None) -> bool:
    """Acquire the lock of a point or study. Returns False if another process holds it until `deadline`.

    It is a lock of the system, which releases it when the holding process ends, in whatever way.

    deadline: in seconds of time.monotonic
    on_wait: called once with the seconds left, if the lock is not free at first
    Raises: Stopped if this process receives a signal to stop while it waits.
    """
    has_waited = False
    while True:
        try:
            lock.acquire(timeout=LOCK_RETRY_SECONDS)
            return True
        except Timeout:
            signals.raise_if_stopped()
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                return False
            if not has_waited:
                has_waited = True
                on_wait(seconds_left)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the point's lock. Needs read access only, and takes a shared lock for a moment."""
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

    reason: why it is in this state
    job: its Slurm job
    requeued: how often that job was requeued
    step: training steps done
    """

    state: str
    reason: str | None = None
    job: str | None = None
    requeued: int = 0
    step: int = 0


def read_state(folder: Path) -> State:
    """Return the state of a point from its folder alone, regardless of the Slurm queue."""
    if is_done(folder):
        return State(DONE)
    note = read_note(folder)
    if note is None:
        return State(WAITING)
    owner, step = note.owner, steps_done(folder)
    if note.state == RUNNING and not is_locked(folder):
        return State(INTERRUPTED, f"{owner} is gone", owner.job, owner.restarts, step)
    return State(note.state, note.reason, owner.job, owner.restarts, step)


def steps_done(folder: Path) -> int:
    """Return the last step of the training curve or of the newest checkpoint, whichever is larger."""
    line = last_line(folder / "metrics.jsonl")
    return max(0 if line is None else int(line["step"]), newest_step(folder / "checkpoint"))
