"""The state of a point, as its own folder tells it: true after any crash, for whoever works on a point says so there.

<point>/results.json    the point is done
<point>/state.json      who works or worked on it, and if that failed or was stopped, why
<point>/.lock           held by the process that works on it, and by nobody once that process is gone
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

LOOK_AGAIN_SECONDS = 1.0  # at a lock that another process holds
RESULTS, STATE, LOCK = "results.json", "state.json", ".lock"
WAITING, QUEUED, RUNNING, INTERRUPTED, FAILED, DONE = "waiting", "queued", "running", "interrupted", "failed", "done"


@dataclass(frozen=True)
class Owner:
    """A process that works on points: where it runs, and as which run of which Slurm job (None: of none)."""

    host: str
    pid: int
    job: str | None
    restarts: int

    @classmethod
    def this(cls) -> "Owner":
        return cls(socket.gethostname(), os.getpid(), this_job(), int(os.environ.get("SLURM_RESTART_COUNT", 0)))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", job {self.job}" if self.job else "")


def this_job() -> str | None:
    """The Slurm job that this process is of, as squeue writes it: 12, or 12_3 for a task of an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


@dataclass(frozen=True)
class Note:
    """What state.json holds."""

    state: str
    reason: str | None
    owner: Owner


def write_state(folder: Path, state: str, reason: str | None = None) -> None:
    """Have the point's folder say that this process works on it, or how that ended."""
    write_json(folder / STATE, {"state": state, "reason": reason, "owner": asdict(Owner.this()), "time": time.time()})


def read_note(folder: Path) -> Note | None:
    """What the point's folder says, None if nothing."""
    found = read_json(folder / STATE)
    return None if found is None else Note(found["state"], found["reason"], Owner(**found["owner"]))


def is_done(folder: Path) -> bool:
    return read_json(folder / RESULTS) is not None


def write_state_if_unlocked(folder: Path, state: str, reason: str) -> None:
    """The same by a process that does not hold the point's lock; if another one does, it is for that one to note."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Timeout), FileLock(folder / LOCK, blocking=False):
        write_state(folder, state, reason)


def acquire(lock: FileLock, deadline: float, waiting: Callable[[float], None] = lambda left: None) -> bool:
    """Take the lock of a point or study; it is the system's, so it goes with the process that holds it, however that
    ends. False if another process does not let go before `deadline` (of time.monotonic); `waiting` hears once how many
    seconds are left. Raises: Stopped if this process is told to stop while it waits."""
    told = False
    while True:
        try:
            lock.acquire(timeout=LOOK_AGAIN_SECONDS)
            return True
        except Timeout:
            signals.raise_if_stopped()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if not told:
                told = True
                waiting(left)


def is_locked(folder: Path) -> bool:
    """Whether a process works on the point. Anybody may look who may read; looking keeps nobody else from looking."""
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
    """The state of a point, and what is known of it: why, as which job, how often requeued, how far (steps)."""

    state: str
    reason: str | None = None
    job: str | None = None
    requeued: int = 0
    step: int = 0


def read_state(folder: Path) -> State:
    """The state of a point for which no Slurm job is in the queue."""
    if is_done(folder):
        return State(DONE)
    known = read_note(folder)
    if known is None:
        return State(WAITING)
    job, step = known.owner.job, steps_done(folder)
    if known.state != RUNNING:
        return State(known.state, known.reason, job, known.owner.restarts, step)
    if is_locked(folder):
        return State(RUNNING, known.reason, job, known.owner.restarts, step)
    return State(INTERRUPTED, f"{known.owner} is gone", job, known.owner.restarts, step)


def steps_done(folder: Path) -> int:
    """As far as the training curve or the newest saved state has got."""
    line = last_line(folder / "metrics.jsonl")
    return max(0 if line is None else int(line["step"]), newest_step(folder / "checkpoint"))
