"""Submits points and tasks to Slurm: each pack of points becomes one task of a job array.

outputs/<name>/slurm/<job name>/submission.json     what the jobs read: packs, configurations, limits
outputs/<name>/slurm/<job name>/<id>_submission.sh  the batch script
outputs/<name>/slurm/<job name>/<id>_<task>_0_log.out
outputs/<name>/slurm/code-<hash>/                   the code that the jobs run
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
from sae_sweeps.runtime.files import write_json
from sae_sweeps.sweep import Point, Sweep, slurm_queue
from sae_sweeps.sweep.packs import split_into_packs
from sae_sweeps.sweep.point_state import DONE, QUEUED, RUNNING, State
from sae_sweeps.sweep.sweep_state import FOLDER, POINTS, SweepStates, read_states, task_label
from sae_sweeps.tasks.follow_ups import sort_studies_first

SUBMISSION = "submission.json"
SUBMIT_LOCK = ".submit.lock"  # in the sweep's folder: one command submits at a time
MAX_LISTED_PACKS = 12  # with more packs, only the size of the largest is printed


@dataclass(frozen=True)
class Submitted:
    """What a command has submitted, and how many points it has skipped."""

    jobs: list[str]  # ids of the arrays that run packs
    packs: list[int]  # points in each pack
    follow_ups: dict[str, str]  # task -> job id
    done: int  # points skipped because they are done
    under_way: int  # points skipped because they are queued or running

    def lines(self) -> list[str]:
        """Return the lines that the command prints."""
        skipped = [f"{self.done} done"] if self.done else []
        skipped += [f"{self.under_way} queued or running"] if self.under_way else []
        lines = [f"skipped: {', '.join(skipped)}"] if skipped else []
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
    """Submit the points that are not done, queued or running, and the follow-up tasks behind all jobs of the sweep.

    Raises: SlurmError if Slurm does not answer or refuses a job. Jobs that it accepted before stay submitted.
    """
    with FileLock(sweep.folder / SUBMIT_LOCK):
        seen = _read_states(sweep)
        unfinished = [point for point in points if seen.points[point.name].state not in (DONE, QUEUED, RUNNING)]
        code = copy_code(sweep.folder.absolute() / FOLDER)
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
            raise SlurmError(f"{error}" + f" (submitted before that: job {', '.join(jobs)})" * bool(jobs)) from None
    states = [seen.points[point.name].state for point in points]
    under_way = states.count(QUEUED) + states.count(RUNNING)
    return Submitted(jobs, [len(pack) for pack in packs], follow_ups, states.count(DONE), under_way)


def submit_task(sweep: Sweep, task: str, configs: Sequence[Config], settings: Settings) -> str | None:
    """Submit a study task without points: one array task per configuration that is not queued or running already.

    Returns the job's id, None if all configurations are under way.
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
        code = copy_code(sweep.folder.absolute() / FOLDER)
        return _submit_array(sweep, code, {**_describe_task(task, remaining), "by_itself": True}, settings)


def _read_states(sweep: Sweep) -> SweepStates:
    """Return the states of the sweep. Raises: SlurmError if Slurm does not answer, so that nothing runs twice."""
    seen = read_states(sweep)
    if seen.slurm_error is not None:
        raise SlurmError(seen.slurm_error)
    return seen


def _describe_packs(packs: Sequence[Sequence[Point]], settings: Settings) -> dict[str, Any]:
    """Return what submission.json holds for an array of packs."""
    return {
        "task": POINTS,
        "packs": [{point.name: asdict(point.config) for point in pack} for pack in packs],
        "max_memory": settings.max_memory,
    }


def _describe_task(task: str, configs: Sequence[Config], behind: Sequence[str] = ()) -> dict[str, Any]:
    """Return what submission.json holds for a task on the sweep, with one array task per configuration.

    behind: names of the arrays whose points the task waits for
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
    """Submit follow-up tasks. Returns their job ids.

    A study waits for every job of points that has not ended; any other task waits for the studies as well and gets no
    GPU. An up-to-date task is skipped. A task that is out of date but still queued is replaced.
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
    """Return whether a task is queued, running or done with these settings and waits (or waited) for all arrays.

    latest: the entry of its last submission in sweep.json
    """
    if state is None or latest is None or state.state not in (QUEUED, RUNNING, DONE):
        return False
    return latest.get("settings", []) == settings and arrays <= set(latest["behind"])


def _without_gpu(settings: Settings) -> Settings:
    """Return the settings for a task that needs no GPU."""
    return replace(
        settings, gres=None, sbatch={key: value for key, value in settings.sbatch.items() if "gpu" not in key}
    )


def _array_id(job: str) -> str:
    """Return the id of the array that an array task such as 12_3 belongs to."""
    return job.partition("_")[0]


def _submit_array(
    sweep: Sweep, code: Path, content: dict[str, Any], settings: Settings, after: Sequence[str] = ()
) -> str:
    """Submit one array and return its id.

    sweep.json lists the array by its unique name before Slurm gets it, and by its id afterwards. If the command dies
    in between, the jobs are found again by the name.
    """
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', sweep.name)[:60]}.{secrets.token_hex(4)}"
    folder = sweep.folder.absolute() / FOLDER / name
    write_json(
        folder / SUBMISSION, {**content, "name": name, "directory": os.getcwd(), "sweep": str(sweep.folder.absolute())}
    )
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
    """Remove an array that Slurm refused from the content of sweep.json."""
    known["jobs"] = [job for job in known["jobs"] if job["name"] != name]


def _confirm_submission(known: dict[str, Any], name: str, id: str) -> None:
    """Add the id of an array to the content of sweep.json, and mark its points as queued."""
    (submission,) = (job for job in known["jobs"] if job["name"] == name)
    submission["id"] = id
    for index, pack in enumerate(submission["packs"]):
        for point in pack:
            known["points"][point] |= {"state": QUEUED, "reason": None, "job": f"{id}_{index}"}
