"""From points to jobs: what is neither done nor queued becomes packs, packs become the tasks of job arrays.

outputs/<name>/slurm/<job name>/submission.json     what the tasks read: packs, configurations, limits
outputs/<name>/slurm/<job name>/<id>_submission.sh  the batch script
outputs/<name>/slurm/<job name>/<id>_<task>_0_log.out
outputs/<name>/slurm/code-<hash>/                   the code that they run
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
from sae_sweeps.launchers.slurm.snapshot import snapshot
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.runtime.files import write_json
from sae_sweeps.sweep import Point, Sweep, slurm_queue
from sae_sweeps.sweep.packs import split_into_packs
from sae_sweeps.sweep.point_state import DONE, QUEUED, RUNNING
from sae_sweeps.sweep.sweep_state import FOLDER, POINTS, SweepStates, read_states, task_label
from sae_sweeps.tasks.follow_ups import in_order

SUBMISSION = "submission.json"


@dataclass(frozen=True)
class Submitted:
    """What a command has submitted: job ids, sizes of the packs, the jobs of tasks that follow; and what it left be."""

    jobs: list[str]
    packs: list[int]
    follow_ups: dict[str, str]
    done: int
    under_way: int

    def lines(self) -> list[str]:
        """As a person is told."""
        left = [f"{self.done} done"] * bool(self.done) + [f"{self.under_way} queued or running"] * bool(self.under_way)
        told = [f"{', '.join(left)}: left as they are"] if left else []
        if self.jobs:
            few = len(self.packs) <= 12
            sizes = " + ".join(map(str, self.packs)) if few else f"up to {max(self.packs)}"
            told.append(
                f"submitted {pluralize(sum(self.packs), 'point')} in {pluralize(len(self.packs), 'pack')} of {sizes}: "
                f"job {', '.join(self.jobs)}, a task for each pack"
            )
        told += [f"submitted {task}, to follow: job {id}" for task, id in self.follow_ups.items()]
        return told if self.jobs or self.follow_ups else [*told, "there is nothing to submit"]


def submit(sweep: Sweep, points: Sequence[Point], then: Sequence[str], settings: Settings) -> Submitted:
    """Submit the points that are neither done nor under way, and behind all of the sweep's jobs the tasks that follow.

    Raises: SlurmError if Slurm does not answer or refuses; what it has taken before stays submitted.
    """
    with FileLock(sweep.folder / ".submit.lock"):
        seen = read_states(sweep)
        if seen.slurm_error is not None:
            raise SlurmError(seen.slurm_error)
        todo = [point for point in points if seen.points[point.name].state not in (DONE, QUEUED, RUNNING)]
        code = snapshot(sweep.folder.absolute() / FOLDER)
        packs = split_into_packs(todo, settings.max_points)
        largest = slurm_queue.max_array_size() if packs else 1
        sweep.record_states(seen.points, seen.content)
        jobs: list[str] = []
        try:
            for at in range(0, len(packs), largest):
                jobs.append(_submit(sweep, code, packs[at : at + largest], settings))
            follow_ups = _submit_follow_ups(sweep, code, points[0].config, then, settings, seen, jobs)
        except SlurmError as error:
            raise SlurmError(f"{error}" + f" (submitted before that: job {', '.join(jobs)})" * bool(jobs)) from None
    states_now = [seen.points[point.name].state for point in points]
    under_way = states_now.count(QUEUED) + states_now.count(RUNNING)
    return Submitted(jobs, [len(pack) for pack in packs], follow_ups, states_now.count(DONE), under_way)


def _submit(sweep: Sweep, code: Path, packs: Sequence[Sequence[Point]], settings: Settings) -> str:
    content = {
        "task": POINTS,
        "packs": [{point.name: asdict(point.config) for point in pack} for pack in packs],
        "max_memory": settings.max_memory,
    }
    return _submit_array(sweep, code, content, settings)


def submit_task(sweep: Sweep, task: str, configs: Sequence[Config], settings: Settings) -> str | None:
    """Submit a study of the sweep by itself, once with each configuration that is not under way. Returns the job's id,
    None if all are.

    Raises: SlurmError if Slurm does not answer or refuses.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(sweep.folder / ".submit.lock"):
        seen = read_states(sweep)
        if seen.slurm_error is not None:
            raise SlurmError(seen.slurm_error)
        live = {label for label, state in seen.follow_ups.items() if state.state in (QUEUED, RUNNING)}
        under_way = [
            point_settings
            for job in sweep.read()["jobs"]
            for index, point_settings in enumerate(job.get("settings", []))
            if job["task"] == task and task_label(job, index) in live
        ]
        waiting = [config for config in configs if select_study_settings(config, task) not in under_way]
        if not waiting:
            return None
        code = snapshot(sweep.folder.absolute() / FOLDER)
        return _submit_array(sweep, code, {**_content(task, waiting), "by_itself": True}, settings)


def _content(task: str, configs: Sequence[Config], behind: Sequence[str] = ()) -> dict[str, Any]:
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
    new: Sequence[str],
) -> dict[str, str]:
    """Submit the tasks that follow, behind every job of the sweep that is still to end, and what is no study behind the
    studies too. What is queued, running or done already is left as it is, unless there have been jobs since or its
    settings are others: then one that is queued is replaced."""
    live = [state.job for state in seen.points.values() if state.state in (QUEUED, RUNNING)]
    before = sorted({job.partition("_")[0] for job in live if job is not None})
    extras = {key: value for key, value in settings.sbatch.items() if "gpu" not in key}
    without_gpu = replace(settings, gres=None, sbatch=extras)
    known = sweep.read()["jobs"]
    arrays = {job["name"] for job in known if job["task"] == POINTS}
    latest = {job["task"]: job for job in known if job["task"] != POINTS and not job.get("by_itself")}
    submitted: dict[str, str] = {}
    studies: list[str] = []
    under_way: list[str] = []  # studies of an earlier command
    for task in in_order(then):
        earlier = seen.follow_ups.get(task)
        waits = earlier is not None and earlier.state == QUEUED
        content = _content(task, [config], sorted(arrays))
        if earlier is not None and earlier.state in (QUEUED, RUNNING, DONE) and task in latest:
            same = latest[task].get("settings", []) == content["settings"]
            if same and arrays <= set(latest[task]["behind"]) and not (studies and task not in STUDY_TASKS):
                if task in STUDY_TASKS and earlier.state != DONE and earlier.job is not None:
                    under_way.append(earlier.job.partition("_")[0])
                continue
        if task in STUDY_TASKS:
            submitted[task] = _submit_array(sweep, code, content, settings, after=[*before, *new])
            studies.append(submitted[task])
        else:
            behind = [*before, *new, *under_way, *studies]
            submitted[task] = _submit_array(sweep, code, content, without_gpu, after=behind)
        if waits and earlier is not None and earlier.job is not None:
            slurm_queue.cancel(earlier.job)
    return submitted


def _submit_array(
    sweep: Sweep, code: Path, content: dict[str, Any], settings: Settings, after: Sequence[str] = ()
) -> str:
    """Submit one array. It is noted by its name before Slurm has it, and with its id after: whatever ends the command
    between the two, the jobs are found again by the name."""
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', sweep.name)[:60]}.{secrets.token_hex(4)}"
    folder = sweep.folder.absolute() / FOLDER / name
    write_json(
        folder / SUBMISSION, {**content, "name": name, "directory": os.getcwd(), "sweep": str(sweep.folder.absolute())}
    )
    note: dict[str, Any] = {
        "id": None,
        "name": name,
        "task": content["task"],
        "packs": [list(pack) for pack in content["packs"]],
        "behind": content.get("behind", []),
        "settings": content.get("settings", []),
        "by_itself": content.get("by_itself", False),
    }

    def add(known: dict[str, Any]) -> None:
        known["jobs"].append(note)

    def complete(known: dict[str, Any]) -> None:
        (mine,) = (job for job in known["jobs"] if job["name"] == name)
        mine["id"] = id
        for index, pack in enumerate(note["packs"]):
            for point in pack:
                known["points"][point] |= {"state": QUEUED, "reason": None, "job": f"{id}_{index}"}

    def remove(known: dict[str, Any]) -> None:
        known["jobs"] = [job for job in known["jobs"] if job["name"] != name]

    sweep.update(add)
    try:
        id = script.submit(folder, code, name, len(note["packs"]), settings, after)
    except SlurmError:
        taken = slurm_queue.find_jobs([name])  # Slurm can have taken what it did not get round to confirm
        if not taken:
            sweep.update(remove)
            shutil.rmtree(folder)
            raise
        id = next(iter(taken)).partition("_")[0]
    sweep.update(complete)
    return id
