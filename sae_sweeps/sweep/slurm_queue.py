"""Queries to Slurm about a sweep's jobs, and requests to requeue or cancel one."""

import functools
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sae_sweeps.runtime.errors import SlurmError, first_line

# squeue's names of the states of a job that has not ended
LIVE = {
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD",
}  # fmt: skip
COLUMNS = {"JobArrayID": 40, "Name": 100, "State": 24, "RestartCnt": 10, "Reason": 60}  # squeue's columns, characters
ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 4, 10.0  # to requeue, while slurmctld is briefly unreachable
SECONDS = 60  # timeout of a call; slurmctld can be slow under load
DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's default


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array: `id` is 12 or 12_3; `reason` says why it waits or ended."""

    id: str
    name: str
    state: str
    restarts: int
    reason: str | None

    @property
    def is_live(self) -> bool:
        """Return whether the job waits or runs."""
        return self.state in LIVE


def find_jobs(names: Iterable[str]) -> dict[str, Job]:
    """Return, by id, the jobs with these names that Slurm still knows: those in the queue and those that just ended.

    Raises: SlurmError if Slurm does not answer.
    """
    if not (wanted := sorted(set(names))):
        return {}
    columns = ",".join(f"{column}:{width}" for column, width in COLUMNS.items())
    output = _call(
        "squeue", "--noheader", "--array", "--all", "--states=all", f"--name={','.join(wanted)}", f"--Format={columns}"
    )
    jobs = {}
    for line in output.splitlines():
        start, cells = 0, []
        for width in COLUMNS.values():
            cells.append(line[start : start + width].strip())
            start += width
        id, name, state, restarts, reason = cells
        jobs[id] = Job(id, name, state, int(restarts or 0), None if reason == "None" else reason)
    return jobs


@functools.cache
def find_end_states(ids: tuple[str, ...]) -> dict[str, str]:
    """Return the end states (id -> state) of jobs that squeue no longer lists, if Slurm keeps accounts.

    Cached, because an ended job does not change and sacct is slow.
    """
    options = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State")
    try:
        output = _call("sacct", *options, "-j", ",".join(ids))
    except SlurmError:
        return {}  # this cluster keeps no accounts
    return {id: state.split()[0] for id, _, state in (line.partition("|") for line in output.splitlines()) if state}


def cancel(id: str) -> None:
    """Cancel a job. Raises: SlurmError if Slurm does not answer or refuses."""
    _call("scancel", id)


def requeue(id: str) -> str | None:
    """Requeue the job of this process. Returns why it was not requeued; None if it was.

    A cancelled job is not requeued, nor one that Slurm has requeued itself, because that one may already run on another
    node. `id` must be that of the array task: the SLURM_JOB_ID of the array's last task is the id of the whole array.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _requeue(id)
        except SlurmError as error:
            reason = str(error)
            if attempt < ATTEMPTS - 1:
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
    return reason


def _requeue(id: str) -> str | None:
    words = _call("scontrol", "show", "job", "--oneliner", id).split()
    fields = dict(word.split("=", 1) for word in words if "=" in word)
    if int(fields.get("Restarts", 0)) != int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return "Slurm has requeued the job"
    if fields.get("JobState") != "RUNNING" and fields.get("Reason") != "TimeLimit":
        return "the job was cancelled"
    _call("scontrol", "requeue", id)
    return None


def max_array_size() -> int:
    """Return the cluster's MaxArraySize. Raises: SlurmError if Slurm does not answer."""
    for line in _call("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize":
            return int(value)
    return DEFAULT_MAX_ARRAY_SIZE


def _call(*command: str) -> str:
    """Run a command of Slurm and return its output. Raises: SlurmError if it is missing, fails or takes too long."""
    # SQUEUE_* variables are a user's default filters, which could hide jobs
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True, env=environment)
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise SlurmError(f"{command[0]}: {first_line(ValueError(error.stderr))}") from None
    return done.stdout
