"""The states of a sweep's points, from their folders and from Slurm together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import point_state, slurm_queue
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, WAITING, State
from sae_sweeps.sweep.slurm_queue import Job
from sae_sweeps.sweep.sweep import Sweep

FOLDER = "slurm"  # of a sweep: its submissions, with their scripts and logs, and the code that they run
POINTS = "points"  # what a submission is of, if not of a task that follows
BEGUN = {"RUNNING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED"}


def task_label(submission: Mapping[str, Any], index: int) -> str:
    """The name under which a task of an array is told of that is no pack of points: a task that follows is known by its
    own, one that was submitted by itself by its job as well."""
    if not submission.get("by_itself"):
        return submission["task"]
    return f"{submission['task']} {index + 1} of {len(submission['packs'])} in {submission['name']}"


@dataclass(frozen=True)
class Seen:
    """What is to be seen of a sweep: its points, the jobs of the tasks that follow, and why Slurm was not heard."""

    points: dict[str, State]
    content: Mapping[str, Any]  # of the sweep.json that the states were read with
    follow_ups: dict[str, State] = field(default_factory=dict)
    slurm_error: str | None = None


@dataclass(frozen=True)
class _Task:
    """The task of an array that a point or a follow-up was given to last."""

    id: str
    log: str
    job: Job | None  # as Slurm knows it; None if it does not


def read_states(sweep: Sweep) -> Seen:
    """Look at all points of a sweep. What the folders say stands where Slurm cannot be asked."""
    known = sweep.read()
    submissions: list[dict[str, Any]] = known["jobs"]
    jobs: dict[str, Job] = {}
    error = None
    try:
        jobs = slurm_queue.jobs(submission["name"] for submission in submissions)
    except SlurmError as not_heard:
        error = str(not_heard)
    # an array that is cancelled before a task of it began is one record, without the number of a task
    by_place = {(job.name, job.id.partition("_")[2]): job for job in jobs.values()}
    latest: dict[str, _Task] = {}
    latest_follow_ups: dict[str, _Task] = {}
    for submission in submissions:
        for index, pack in enumerate(submission["packs"]):
            job = by_place.get((submission["name"], str(index))) or by_place.get((submission["name"], ""))
            if submission["id"] is None and job is None:
                continue  # the command that was to submit it ended before it could
            array = job.id.partition("_")[0] if job else submission["id"]
            id = f"{array}_{index}"
            task = _Task(id, f"{FOLDER}/{submission['name']}/{id}_0_log.out", job)
            if submission["task"] == POINTS:
                latest.update(dict.fromkeys(pack, task))
            else:
                latest_follow_ups[task_label(submission, index)] = task
    points = {name: point_state.read_state(sweep.folder / name) for name in known["points"]}
    unfinished = [latest[name] for name, found in points.items() if name in latest and found.state != DONE]
    gone = tuple(sorted({task.id for task in unfinished if task.job is None}))
    ended = slurm_queue.ended(gone) if gone and error is None else {}
    for name in points.keys() & latest.keys():
        found, task = points[name], latest[name]
        if found.state == DONE:
            points[name] = replace(found, job=task.id)
        else:
            points[name] = _of_submitted(found, point_state.read_note(sweep.folder / name), task, ended, error)
    return Seen(points, known, _follow_ups(known["followed"], latest_follow_ups, error), error)


def _of_submitted(
    found: State, note: point_state.Note | None, task: _Task, ended: Mapping[str, str], error: str | None
) -> State:
    """The state of a point that a job was to get done, and that is not done."""
    job = task.job
    if job is not None and job.live:
        mine = note is not None and (note.owner.job, note.owner.restarts) == (job.id, job.restarts)
        if mine and note is not None and note.state == FAILED:
            return replace(found, job=job.id, requeued=job.restarts)
        if job.state in BEGUN or (job.state == "COMPLETING" and mine):
            stopping = mine and note is not None and note.state == INTERRUPTED
            why = "stopping" if stopping else found.reason if mine and found.state == RUNNING else "starting"
            return State(RUNNING, why, job.id, job.restarts, found.step)
        return State(QUEUED, job.reason, job.id, job.restarts, found.step)
    of_no_job = note is not None and note.owner.job is None
    if found.state in (RUNNING, FAILED) or (found.state == INTERRUPTED and of_no_job):
        return found  # by a process that has outlived its job, or is of none
    if error is not None:
        return replace(found, state=QUEUED if found.state == WAITING else found.state, reason="Slurm does not answer")
    why = _ended(task, "the point was done", job.state if job is not None else ended.get(task.id))
    return replace(found, state=INTERRUPTED, reason=why, job=task.id)


def _ended(task: _Task, done: str, how: str | None) -> str:
    """What is to be said of a job that has ended too early, in the state `how` if Slurm knows it."""
    if how == "CANCELLED":
        return f"job {task.id} was cancelled"
    return f"job {task.id} ended before {done}{f' ({how})' if how else ''}, see {task.log}"


def _follow_ups(
    followed: Mapping[str, Mapping[str, Any]], latest: Mapping[str, _Task], error: str | None
) -> dict[str, State]:
    """The states of the tasks that follow: those that have run say so in sweep.json, the others are jobs."""
    found = {}
    for name, task in latest.items():
        outcome = followed.get(name)
        if outcome is not None and outcome["job"] == task.id:
            found[name] = State(outcome["state"], outcome["reason"], task.id)
        elif task.job is not None and task.job.live:
            state = RUNNING if task.job.state in BEGUN else QUEUED
            found[name] = State(state, task.job.reason, task.id, task.job.restarts)
        else:
            why = (
                "Slurm does not answer" if error else _ended(task, "it was done", task.job.state if task.job else None)
            )
            found[name] = State(QUEUED if error else INTERRUPTED, why, task.id)
    for name, outcome in followed.items():
        found.setdefault(name, State(outcome["state"], outcome["reason"], outcome["job"]))
    return found
