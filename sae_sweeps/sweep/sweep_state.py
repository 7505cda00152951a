"""Reads the states of a sweep's points and follow-up tasks from their folders and from Slurm."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import point_state, slurm_queue
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, PRUNED, QUEUED, RUNNING, WAITING, State
from sae_sweeps.sweep.rebuild import SLURM_FOLDER
from sae_sweeps.sweep.slurm_queue import Job
from sae_sweeps.sweep.sweep import Sweep

POINTS = "points"  # `task` of a submission of packs; that of a follow-up task or study has the name of the task
STARTED = {
    "RUNNING",
    "SUSPENDED",
    "STAGE_OUT",
    "SIGNALING",
    "RESIZING",
    "STOPPED",
}  # Slurm's states of a started job
NO_ANSWER = "Slurm does not answer"


def task_label(submission: Mapping[str, Any], index: int) -> str:
    """Return the display name of an array task that runs a follow-up task or a study instead of a pack of points.

    This is the name of the task, such as "report". A study that was submitted by itself also gets a number and the name
    of the job: "stitch 2 of 3 in JOB".

    index: number of the array task, from 0
    """
    if not submission.get("by_itself"):
        return submission["task"]
    return f"{submission['task']} {index + 1} of {len(submission['packs'])} in {submission['name']}"


@dataclass(frozen=True)
class SweepStates:
    """The states of a sweep's points and follow-up tasks at one moment.

    points: folder name -> state
    content: the content of sweep.json at that moment
    follow_ups: label of a follow-up task (setting `then`) -> state
    slurm_error: why Slurm did not answer; None if Slurm answered
    """

    points: dict[str, State]
    content: Mapping[str, Any]
    follow_ups: dict[str, State] = field(default_factory=dict)
    slurm_error: SlurmError | None = None


@dataclass(frozen=True)
class _Task:
    """The latest Slurm array task of a point or follow-up: id, path of the log in the sweep's folder, and job."""

    id: str
    log: str
    job: Job | None  # None if squeue does not list the job (any more)


def read_states(sweep: Sweep) -> SweepStates:
    """Return the states of all points and follow-up tasks, with one read of sweep.json and one call of squeue.

    If Slurm does not answer, the states come from the folders alone, and the result's `slurm_error` is set.
    """
    content = sweep.read()
    submissions: list[dict[str, Any]] = content["jobs"]
    jobs: dict[str, Job] = {}
    error: SlurmError | None = None
    try:
        jobs = slurm_queue.find_jobs(submission["name"] for submission in submissions)
    except SlurmError as no_answer:
        error = no_answer
    tasks, follow_ups = _latest_tasks(submissions, jobs)

    points = {name: point_state.read_state(sweep.folder / name) for name in content["points"]}
    unfinished = [tasks[name] for name, state in points.items() if name in tasks and state.state != DONE]
    forgotten = tuple(sorted({task.id for task in unfinished if task.job is None}))
    end_states = slurm_queue.find_end_states(forgotten) if forgotten and error is None else {}
    for name in points.keys() & tasks.keys():
        state, task = points[name], tasks[name]
        if state.state == DONE:
            points[name] = replace(state, job=task.id)
        else:
            note = point_state.read_note(sweep.folder / name)
            points[name] = _merge_with_job(state, note, task, end_states.get(task.id), error)
    return SweepStates(points, content, _read_follow_ups(content["followed"], follow_ups, error), error)


def _latest_tasks(
    submissions: list[dict[str, Any]], jobs: Mapping[str, Job]
) -> tuple[dict[str, _Task], dict[str, _Task]]:
    """Return the latest Slurm array task of each point (by folder name) and of each follow-up task (by label).

    submissions: the entry `jobs` of sweep.json; jobs: those that squeue lists, by id
    """
    # squeue lists an array that was cancelled before any task started as one job, without a task number
    by_place = {(job.name, job.id.partition("_")[2]): job for job in jobs.values()}
    points: dict[str, _Task] = {}
    follow_ups: dict[str, _Task] = {}
    for submission in submissions:
        for index, pack in enumerate(submission["packs"]):
            job = by_place.get((submission["name"], str(index))) or by_place.get((submission["name"], ""))
            if submission["id"] is None and job is None:
                continue  # the command ended before it could submit
            array = job.id.partition("_")[0] if job else submission["id"]
            id = f"{array}_{index}"
            task = _Task(id, f"{SLURM_FOLDER}/{submission['name']}/{id}_0_log.out", job)
            if submission["task"] == POINTS:
                points.update(dict.fromkeys(pack, task))
            else:
                follow_ups[task_label(submission, index)] = task
    return points, follow_ups


def _merge_with_job(
    state: State, note: point_state.Note | None, task: _Task, end_state: str | None, error: SlurmError | None
) -> State:
    """Return the state of an unfinished point that was submitted to Slurm.

    state, note: state of the point by its folder alone, and the content of state.json
    end_state: Slurm's state of the ended job; None if unknown
    error: why Slurm did not answer; None if Slurm answered
    """
    job = task.job
    if job is not None and job.is_live:
        is_current = note is not None and (note.owner.job, note.owner.restarts) == (job.id, job.restarts)
        if is_current and note is not None and note.state in (FAILED, PRUNED):
            return replace(state, job=job.id, requeued=job.restarts)
        if job.state in STARTED or (job.state == "COMPLETING" and is_current):
            is_stopping = is_current and note is not None and note.state == INTERRUPTED
            is_running = is_current and state.state == RUNNING
            reason = "stopping" if is_stopping else state.reason if is_running else "starting"
            return State(RUNNING, reason, job.id, job.restarts, state.step)
        return State(QUEUED, job.reason, job.id, job.restarts, state.step)
    was_local = note is not None and note.owner.job is None
    if state.state in (RUNNING, FAILED, PRUNED) or (state.state == INTERRUPTED and was_local):
        return state  # the process of the point outlived the job or never ran in one, so its own state is right
    if error is not None:
        return replace(state, state=QUEUED if state.state == WAITING else state.state, reason=NO_ANSWER)
    reason = _describe_end(task, "the point was done", job.state if job is not None else end_state)
    return replace(state, state=INTERRUPTED, reason=reason, job=task.id)


def _describe_end(task: _Task, goal: str, end_state: str | None) -> str:
    """Return the message for a job that ended too early.

    goal: end of "the job ended before ...", such as "the point was done"
    end_state: Slurm's state of the ended job; None if unknown
    """
    if end_state == "CANCELLED":
        return f"job {task.id} was cancelled"
    return f"job {task.id} ended before {goal}{f' ({end_state})' if end_state else ''}, see {task.log}"


def _read_follow_ups(
    outcomes: Mapping[str, Mapping[str, Any]], latest: Mapping[str, _Task], error: SlurmError | None
) -> dict[str, State]:
    """Return the state of each follow-up task by label: the outcome in sweep.json, else the state of the Slurm job.

    outcomes: the entry `followed` of sweep.json
    latest: latest array task of each follow-up
    error: why Slurm did not answer; None if Slurm answered
    """
    states = {}
    for name, task in latest.items():
        outcome = outcomes.get(name)
        if outcome is not None and outcome["job"] == task.id:
            states[name] = State(outcome["state"], outcome["reason"], task.id)
        elif task.job is not None and task.job.is_live:
            state = RUNNING if task.job.state in STARTED else QUEUED
            states[name] = State(state, task.job.reason, task.id, task.job.restarts)
        elif error is not None:
            states[name] = State(QUEUED, NO_ANSWER, task.id)
        else:
            reason = _describe_end(task, "the task was done", task.job.state if task.job else None)
            states[name] = State(INTERRUPTED, reason, task.id)
    for name, outcome in outcomes.items():
        states.setdefault(name, State(outcome["state"], outcome["reason"], outcome["job"]))
    return states
