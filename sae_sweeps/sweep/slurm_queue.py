"""Queries to Slurm about a sweep's jobs, and requests to submit, requeue or cancel one.

Slurm's lines are recognised by their form. Anything else that a command prints (a banner of the site, the name of a
cluster, an empty line) is passed over.
"""

import functools
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep.slurm_command import call, shorten_message

# squeue's names of the states of a job that has not ended
LIVE = {
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD",
}  # fmt: skip
COLUMNS = {"JobArrayID": 40, "Name": 100, "State": 24, "RestartCnt": 10, "Reason": 60}  # squeue's columns, characters
ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 4, 10.0  # attempts to requeue: slurmctld can be unreachable for a moment
DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's default
SUBMITTED = re.compile(r"Submitted batch job (\d+)(?: on cluster \S+)?")
LISTED = re.compile(r"(\d+(?:_\d+)?) +(\S+) +([A-Z_]+)(?: +(\d+))?(?: +(.*))?")  # COLUMNS of squeue
ENDED = re.compile(r"(\d+(?:_\d+)?)\|([A-Z_]+)(?: .*)?")  # sacct's JobID and State
ARRAY_SIZE = re.compile(r"MaxArraySize\s*=\s*(\d{1,9})")
SHOWN = re.compile(r"JobId=\d+ .*")  # scontrol show job --oneliner


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
    options = ("--noheader", "--array", "--all", "--states=all", f"--name={','.join(wanted)}", f"--Format={columns}")
    jobs = {}
    for match in _match_lines(LISTED, call("squeue", *options)):
        id, name, state, restarts, reason = match.groups()
        if name in wanted:
            jobs[id] = Job(id, name, state, int(restarts or 0), None if reason in (None, "", "None") else reason)
    return jobs


@functools.cache
def find_end_states(ids: tuple[str, ...]) -> dict[str, str]:
    """Return the end state (id -> state) of jobs that squeue no longer lists; empty if Slurm keeps no accounts.

    The result is cached, because an ended job does not change and sacct is slow.
    """
    options = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State")
    try:
        output = call("sacct", *options, "-j", ",".join(ids))
    except SlurmError:
        return {}  # this cluster keeps no accounts
    return {match[1]: match[2] for match in _match_lines(ENDED, output) if match[1] in ids}


def submit(script: Path) -> str:
    """Submit a batch script and return the job's id.

    Raises: SlurmError if Slurm does not answer, refuses the job, or does not say its id.
    """
    output = call("sbatch", str(script))
    for match in _match_lines(SUBMITTED, output):
        return match[1]
    printed = f"printed {shorten_message(output)!r}" if output.strip() else "printed nothing"
    fix = "see with squeue --me whether the job is there, and ask the cluster's administrators what sbatch does"
    raise SlurmError(f"sbatch: {printed}, and no line 'Submitted batch job ID'", fix)


def cancel(id: str) -> None:
    """Cancel the Slurm job with this id. Raises: SlurmError if Slurm does not answer or refuses."""
    call("scancel", id)


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
    shown = [match[0] for match in _match_lines(SHOWN, call("scontrol", "show", "job", "--oneliner", id))]
    fields = dict(word.split("=", 1) for word in " ".join(shown).split() if "=" in word)
    restarts = fields.get("Restarts", "0")
    if "JobState" not in fields or not restarts.isdecimal():
        raise SlurmError(f"scontrol: did not describe the job {id}", f"see scontrol show job {id}")
    if int(restarts) != int(os.environ.get("SLURM_RESTART_COUNT", 0)):
        return "Slurm has requeued the job"
    if fields["JobState"] != "RUNNING" and fields.get("Reason") != "TimeLimit":
        return "the job was cancelled"
    call("scontrol", "requeue", id)
    return None


def max_array_size() -> int:
    """Return MaxArraySize of the cluster, the limit on tasks in a job array: at least 1.

    Raises: SlurmError if Slurm does not answer, or the cluster allows no job arrays.
    """
    sizes = [int(match[1]) for match in _match_lines(ARRAY_SIZE, call("scontrol", "show", "config"))]
    size = sizes[0] if sizes else DEFAULT_MAX_ARRAY_SIZE
    if size < 1:
        fix = "ask the cluster's administrators for job arrays, or train with hydra/launcher=pack in a job of your own"
        raise SlurmError("the cluster allows no job arrays (MaxArraySize = 0 in scontrol show config)", fix)
    return size


def _match_lines(form: re.Pattern[str], output: str) -> Iterator[re.Match[str]]:
    """Yield a match for each line of a command's output that has the form as a whole."""
    for line in output.splitlines():
        if (match := form.fullmatch(line.strip())) is not None:
            yield match
