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
ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 4, 10.0  # attempts to requeue: slurmctld can be unreachable for a moment
SECONDS = 60  # timeout in seconds of one Slurm command; slurmctld can be slow under load
DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's default


@dataclass(frozen=True)
class Job:
    """A Slurm job, or one task of an array.

    id: 12, or 12_3 for an array task
    restarts: how often Slurm restarted the job
    reason: why the job waits or ended; None if Slurm gives no reason
    """

    id: str
    name: str
    state: str
    restarts: int
    reason: str | None

    @property
    def is_live(self) -> bool:
        """Return whether the job has not ended: pending, running, requeued or suspended."""
        return self.state in LIVE


def find_jobs(names: Iterable[str]) -> dict[str, Job]:
    """Return the jobs with these names by id: all in Slurm's queue and those that ended a few minutes ago.

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
    """Return the end state (id -> state) of jobs that squeue no longer lists; empty if Slurm keeps no accounts.

    The result is cached, because an ended job does not change and sacct is slow.
    """
    options = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State")
    try:
        output = _call("sacct", *options, "-j", ",".join(ids))
    except SlurmError:
        return {}  # this cluster keeps no accounts
    return {id: state.split()[0] for id, _, state in (line.partition("|") for line in output.splitlines()) if state}


def cancel(id: str) -> None:
    """Cancel the Slurm job with this id. Raises: SlurmError if Slurm does not answer or refuses."""
    _call("scancel", id)


def requeue(id: str) -> str | None:
    """Requeue the Slurm job of the current process. Returns the reason if the job was not requeued, else None.

    A cancelled job is not requeued. Neither is a job that Slurm itself has requeued: the job may already
    run on another node.

    id: for an array task, 12_3; SLURM_JOB_ID would not do, because for the last task it is the id of the whole array
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
    """Return MaxArraySize of the cluster, the limit on tasks in a job array. Raises: SlurmError without an answer."""
    for line in _call("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize":
            return int(value)
    return DEFAULT_MAX_ARRAY_SIZE


def _call(*command: str) -> str:
    """Run a Slurm command and return the text on stdout.

    Raises: SlurmError if the command is not installed, fails, or takes longer than SECONDS.
    """
    # SQUEUE_* variables set a user's default filters, which could hide jobs
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
