"""What Slurm says of our jobs, asked in one call for all of them, and the one thing that is asked of it: to requeue."""

import functools
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sae_sweeps.runtime.errors import SlurmError, first_line

# squeue's names for what a job can be in while it may still do something
LIVE = {
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD",
}  # fmt: skip
COLUMNS = {"JobArrayID": 40, "Name": 100, "State": 24, "RestartCnt": 10, "Reason": 60}
ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 4, 10.0  # to requeue, where slurmctld is not there for a moment
SECONDS = 60  # a slurmctld under load may take its time


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array: `id` is 12 or 12_3; `reason` says why it waits or ended."""

    id: str
    name: str
    state: str
    restarts: int
    reason: str | None

    @property
    def live(self) -> bool:
        return self.state in LIVE


def jobs(names: Iterable[str]) -> dict[str, Job]:
    """By their ids, the jobs of these names that Slurm still knows: those in the queue, and those just ended.

    Raises: SlurmError if Slurm does not answer.
    """
    if not (wanted := sorted(set(names))):
        return {}
    form = ",".join(f"{column}:{width}" for column, width in COLUMNS.items())
    listed = _ask(
        "squeue", "--noheader", "--array", "--all", "--states=all", f"--name={','.join(wanted)}", f"--Format={form}"
    )
    found = {}
    for line in listed.splitlines():
        at, cells = 0, []
        for width in COLUMNS.values():
            cells.append(line[at : at + width].strip())
            at += width
        id, name, state, restarts, why = cells
        found[id] = Job(id, name, state, int(restarts or 0), None if why == "None" else why)
    return found


@functools.cache
def ended(ids: tuple[str, ...]) -> dict[str, str]:
    """How jobs ended that squeue has forgotten (id -> state), as far as Slurm keeps accounts. Asked once."""
    try:
        form = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State")
        listed = _ask("sacct", *form, "-j", ",".join(ids))
    except SlurmError:
        return {}  # no accounts are kept
    return {id: state.split()[0] for id, _, state in (line.partition("|") for line in listed.splitlines()) if state}


def cancel(id: str) -> None:
    _ask("scancel", id)


def requeue(id: str) -> str | None:
    """Put the job that this process is of back into the queue. Returns why not, if it is not to be or cannot be.

    A cancelled job stays so, and one that Slurm has put back itself is left alone: it may run elsewhere by now. `id`
    must be that of the array's task: the SLURM_JOB_ID of one of them is the id of the whole array.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _requeue(id)
        except SlurmError as error:
            why = str(error)
            if attempt < ATTEMPTS - 1:
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
    return why


def _requeue(id: str) -> str | None:
    words = _ask("scontrol", "show", "job", "--oneliner", id).split()
    facts = dict(word.split("=", 1) for word in words if "=" in word)
    if int(facts.get("Restarts", 0)) != int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return "Slurm has requeued the job"
    if facts.get("JobState") != "RUNNING" and facts.get("Reason") != "TimeLimit":
        return "the job was cancelled"
    _ask("scontrol", "requeue", id)
    return None


def max_array_size() -> int:
    """The most tasks that an array may have here."""
    for line in _ask("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize":
            return int(value)
    return 1001  # Slurm's default


def _ask(*command: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}  # which hide jobs
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True, env=plain)
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} has not answered for {SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise SlurmError(f"{command[0]}: {first_line(ValueError(error.stderr))}") from None
    return done.stdout
