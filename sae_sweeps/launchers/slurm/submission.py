"""Submits points and tasks to Slurm: each pack of points becomes one task of a job array.

outputs/<name>/slurm/<job name>/submission.json     input of the jobs: packs, configurations, limits
outputs/<name>/slurm/<job name>/<id>_submission.sh  the batch script
outputs/<name>/slurm/<job name>/<id>_<task>_0_log.out  the log of an array task
outputs/<name>/slurm/code-<hash>/                   snapshot of the code that the jobs run
"""

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_study_settings
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.launchers.slurm import script
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.launchers.slurm.snapshot import copy_code
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.runtime.records import write_record
from sae_sweeps.sweep import Point, Sweep, slurm_queue
from sae_sweeps.sweep.halving import list_ended
from sae_sweeps.sweep.packs import split_into_packs
from sae_sweeps.sweep.point_state import DONE, QUEUED, RUNNING, State
from sae_sweeps.sweep.rebuild import SLURM_FOLDER, SUBMISSION, find_damaged_submissions
from sae_sweeps.sweep.sweep_state import POINTS, SweepStates, read_states, task_label
from sae_sweeps.tasks.follow_ups import sort_studies_first

SUBMIT_LOCK = ".submit.lock"  # lock file in the sweep's folder, so that one command submits at a time
MAX_LISTED_PACKS = 12  # maximum number of packs whose sizes are printed; for more, only the largest size is


@dataclass(frozen=True)
class Submitted:
    """The jobs that a command has submitted, and the number of points that it has skipped."""

    jobs: list[str]  # ids of the job arrays that run packs
    packs: list[int]  # number of points in each pack
    follow_ups: dict[str, str]  # follow-up task -> job id
    done: int  # number of points skipped because they are done
    pruned: int  # number of points skipped because halving has ended them
    under_way: int  # number of points skipped because they are queued or running

    def lines(self) -> list[str]:
        """Return the lines to print: the skipped points, the submitted packs, and the submitted follow-up tasks."""
        skipped = [f"{self.done} done"] if self.done else []
        skipped += [f"{self.pruned} pruned"] if self.pruned else []
        skipped += [f"{self.under_way} queued or running"] if self.under_way else []
        lines = [f"skipped points: {', '.join(skipped)}"] if skipped else []
        if self.jobs:
            is_short = len(self.packs) <= MAX_LISTED_PACKS
            sizes = " + ".join(map(str, self.packs)) if is_short else f"up to {max(self.packs)}"
            lines.append(
                f"submitted {pluralize(sum(self.packs), 'point')} in {pluralize(len(self.packs), 'pack')} of {sizes}: "
                f"job {', '.join(self.jobs)}, one array task per pack"
            )
        lines += [f"submitted follow-up task {task}: job {job}" for task, job in self.follow_ups.items()]
        return lines if self.jobs or self.follow_ups else [*lines, "nothing to submit"]


def submit(sweep: Sweep, points: Sequence[Point], then: Sequence[str], settings: Settings) -> Submitted:
    """Submit the points that are not done, queued or running, and the follow-up tasks, which wait for all points' jobs.

    Raises: SlurmError if Slurm does not answer or refuses a job. Jobs that were accepted before that stay submitted.
    """
    with FileLock(sweep.folder / SUBMIT_LOCK):
        seen = _read_states(sweep)
        ended = {point.folder for point in list_ended(points)}
        left = [point for point in points if point.folder not in ended]
        unfinished = [point for point in left if seen.points[point.name].state not in (DONE, QUEUED, RUNNING)]
        code = copy_code(sweep.folder.absolute() / SLURM_FOLDER)
        packs = split_into_packs(unfinished, settings.max_points)
        max_tasks = slurm_queue.max_array_size() if packs else 1
        sweep.record_states(seen.points, seen.content)
        jobs: list[str] = []
        try:
            for start in range(0, len(packs), max_tasks):
                content = _describe_packs(packs[start : start + max_tasks], settings)
                jobs.append(_submit_array(sweep, code, content, settings))
            follow_ups = _submit_follow_ups(sweep, code, points[0].config, then, settings, seen, jobs)
        except SlurmError as error:
            accepted = f" (Slurm accepted job {', '.join(jobs)} before that)" if jobs else ""
            raise SlurmError(f"{error.cause}{accepted}", error.fix) from None
    states = [seen.points[point.name].state for point in points]
    under_way = states.count(QUEUED) + states.count(RUNNING)
    return Submitted(jobs, [len(pack) for pack in packs], follow_ups, states.count(DONE), len(ended), under_way)


def submit_task(sweep: Sweep, task: str, configs: Sequence[Config], settings: Settings) -> str | None:
    """Submit a study task as a job array, with one array task per configuration that is not queued or running already.

    Returns the job's id, or None if all configurations are queued or running.
    Raises: SlurmError if Slurm does not answer or refuses the job.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(sweep.folder / SUBMIT_LOCK):
        seen = _read_states(sweep)
        live = {label for label, state in seen.follow_ups.items() if state.state in (QUEUED, RUNNING)}
        under_way = [
            submitted_settings
            for job in sweep.read()["jobs"]
            for index, submitted_settings in enumerate(job.get("settings", []))
            if job["task"] == task and task_label(job, index) in live
        ]
        remaining = [config for config in configs if select_study_settings(config, task) not in under_way]
        if not remaining:
            return None
        code = copy_code(sweep.folder.absolute() / SLURM_FOLDER)
        return _submit_array(sweep, code, {**_describe_task(task, remaining), "by_itself": True}, settings)


def _read_states(sweep: Sweep) -> SweepStates:
    """Return the states of all points and follow-up tasks.

    Raises: SlurmError if Slurm does not answer, or if it is not known which points a job has: a point could be
    submitted twice.
    """
    seen = read_states(sweep)
    if seen.slurm_error is not None:
        raise seen.slurm_error
    damaged = find_damaged_submissions(sweep.folder)
    for job in slurm_queue.find_jobs(damaged).values() if damaged else ():
        if job.is_live:
            cause = f"job {job.id} is queued or running, and its points are not known, as {damaged[job.name]}"
            raise SlurmError(cause, f"scancel {job.id}, then rerun the command")
    return seen


def _describe_packs(packs: Sequence[Sequence[Point]], settings: Settings) -> dict[str, Any]:
    """Return the content of submission.json for an array of packs, with one array task per pack."""
    return {
        "task": POINTS,
        "packs": [{point.name: asdict(point.config) for point in pack} for pack in packs],
        "max_memory": settings.max_memory,
    }


def _describe_task(task: str, configs: Sequence[Config], behind: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content of submission.json for a task on the sweep, with one array task per configuration.

    behind: job names of the arrays of points that the task waits for
    """
    return {
        "task": task,
        "packs": [{} for _ in configs],
        "configs": [asdict(config) for config in configs],
        "max_memory": None,
        "behind": list(behind),
        "by_itself": False,
        "settings": [select_study_settings(config, task) for config in configs],
    }


def _submit_follow_ups(
    sweep: Sweep,
    code: Path,
    config: Config,
    then: Sequence[str],
    settings: Settings,
    seen: SweepStates,
    new_jobs: Sequence[str],
) -> dict[str, str]:
    """Submit the follow-up tasks in `then`. Returns the submitted ones as task -> job id.

    A study waits for every unfinished job of points; any other task waits for the studies as well and gets no GPU. An
    up-to-date task is skipped. A task that is out of date but still queued is replaced.

    code: folder with the snapshot of the code
    seen: states of the sweep before this command
    new_jobs: ids of the arrays of points that this command has submitted
    """
    submissions = sweep.read()["jobs"]
    arrays = {job["name"] for job in submissions if job["task"] == POINTS}
    latest = {job["task"]: job for job in submissions if job["task"] != POINTS and not job.get("by_itself")}
    live_jobs = {state.job for state in seen.points.values() if state.state in (QUEUED, RUNNING)}
    point_jobs = [*sorted({_array_id(job) for job in live_jobs if job is not None}), *new_jobs]
    live_studies: list[str] = []  # submitted by an earlier command
    new_studies: list[str] = []
    submitted: dict[str, str] = {}
    for task in sort_studies_first(then):
        is_study = task in STUDY_TASKS
        content = _describe_task(task, [config], sorted(arrays))
        earlier = seen.follow_ups.get(task)
        if (is_study or not new_studies) and _is_up_to_date(earlier, latest.get(task), content["settings"], arrays):
            if is_study and earlier is not None and earlier.state != DONE and earlier.job is not None:
                live_studies.append(_array_id(earlier.job))
            continue
        if is_study:
            submitted[task] = _submit_array(sweep, code, content, settings, after=point_jobs)
            new_studies.append(submitted[task])
        else:
            after = [*point_jobs, *live_studies, *new_studies]
            submitted[task] = _submit_array(sweep, code, content, _without_gpu(settings), after)
        if earlier is not None and earlier.state == QUEUED and earlier.job is not None:
            slurm_queue.cancel(earlier.job)
    return submitted


def _is_up_to_date(state: State | None, latest: dict[str, Any] | None, settings: list[Any], arrays: set[str]) -> bool:
    """Return whether a task is queued, running or done with these settings, after all arrays of points.

    state: the task's state; None: never submitted
    latest: the entry of the task's last submission in sweep.json; None: there is none
    settings: for each array task, the settings that the results depend on
    arrays: job names of all arrays of points
    """
    if state is None or latest is None or state.state not in (QUEUED, RUNNING, DONE):
        return False
    return latest.get("settings", []) == settings and arrays <= set(latest.get("behind", []))


def _without_gpu(settings: Settings) -> Settings:
    """Return a copy of the launcher's settings that requests no GPU."""
    return replace(
        settings, gres=None, sbatch={key: value for key, value in settings.sbatch.items() if "gpu" not in key}
    )


def _array_id(job: str) -> str:
    """Return the job id of the array (12) for the id of an array task (12_3)."""
    return job.partition("_")[0]


def _submit_array(
    sweep: Sweep, code: Path, content: dict[str, Any], settings: Settings, after: Sequence[str] = ()
) -> str:
    """Submit one job array and return the job's id.

    sweep.json lists the array by a unique job name before the call of sbatch, and also by the job's id afterwards. If
    the command dies in between, the jobs are found again by the name.

    code: folder with the snapshot of the code
    content: what `_describe_packs` or `_describe_task` returned
    after: ids of the jobs that must end first
    """
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', sweep.name)[:60]}.{secrets.token_hex(4)}"
    folder = sweep.folder.absolute() / SLURM_FOLDER / name
    entry: dict[str, Any] = {
        "id": None,
        "name": name,
        "task": content["task"],
        "packs": [list(pack) for pack in content["packs"]],
        "behind": content.get("behind", []),
        "settings": content.get("settings", []),
        "by_itself": content.get("by_itself", False),
    }
    sweep.update(lambda known: known["jobs"].append(entry))
    write_record(
        folder / SUBMISSION, {**content, "name": name, "directory": os.getcwd(), "sweep": str(sweep.folder.absolute())}
    )
    try:
        job = script.submit(folder, code, name, len(entry["packs"]), settings, after)
    except SlurmError:
        accepted = slurm_queue.find_jobs([name])  # Slurm may have accepted the array without confirming it
        if not accepted:
            sweep.update(lambda known: _remove_submission(known, name))
            shutil.rmtree(folder)
            raise
        job = _array_id(next(iter(accepted)))
    sweep.update(lambda known: _confirm_submission(known, name, job))
    return job


def _remove_submission(known: dict[str, Any], name: str) -> None:
    """Remove the array with this job name from `known`, the content of sweep.json."""
    known["jobs"] = [job for job in known["jobs"] if job["name"] != name]


def _confirm_submission(known: dict[str, Any], name: str, id: str) -> None:
    """Add the job's id of an array to `known`, the content of sweep.json, and mark the array's points as queued.

    name: the array's job name
    """
    (submission,) = (job for job in known["jobs"] if job["name"] == name)
    submission["id"] = id
    for index, pack in enumerate(submission["packs"]):
        for point in pack:
            known["points"][point] |= {"state": QUEUED, "reason": None, "job": f"{id}_{index}"}
