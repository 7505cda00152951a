"""Rebuilds a missing or damaged sweep.json from the folders of its points and of its submissions to Slurm.

<point>/settings.json          the point's configuration, written when a command adds the point
<point>/results.json           has it too; earlier versions wrote no settings.json
slurm/<job>/submission.json    the points' configurations, and what was submitted
slurm/<job>/<id>_submission.sh names the id of the job
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sae_sweeps.config import Config, is_config
from sae_sweeps.runtime.files import to_json
from sae_sweeps.runtime.paths import find_name_problem
from sae_sweeps.runtime.records import DamagedError, load_record, read_record, write_record
from sae_sweeps.sweep import point_state

log = logging.getLogger(__name__)

SETTINGS = "settings.json"  # in a point's folder
SLURM_FOLDER, SUBMISSION = "slurm", "submission.json"  # in the sweep's folder, and in the folder of a job in it
SETTINGS_SHAPE = {"config": is_config}
SUBMISSION_SHAPE = {
    "name": lambda name: isinstance(name, str) and find_name_problem(name) is None,
    "task": str,
    "packs": [lambda pack: isinstance(pack, dict) and not any(map(find_name_problem, pack))],
}
KEPT = ("name", "task", "behind", "settings", "by_itself")  # entries of a submission that sweep.json has too


def write_settings(folder: Path, config: Config) -> None:
    """Write a point's configuration into its folder, unless it is there."""
    content = {"config": asdict(config)}
    if to_json(read_record(folder / SETTINGS, SETTINGS_SHAPE, is_sealed=True)) != to_json(content):
        write_record(folder / SETTINGS, content, is_synced=False)


def rebuild(folder: Path) -> dict[str, Any]:
    """Return the content of sweep.json, but for the outcomes of follow-up tasks, from the folders in a sweep's folder.

    Points and jobs are in the order in which they were added. Folders of points whose configuration is nowhere are
    named in a warning.
    """
    submissions = list(_read_submissions(folder))
    configs: dict[str, Any] = {}
    for submission in submissions:
        for pack in submission["packs"]:
            configs.update({name: config for name, config in pack.items() if is_config(config)})
    configs.update(_read_points(folder))
    jobs = [_describe_job(folder, submission) for submission in submissions]
    states = {name: point_state.read_state(folder / name) for name in configs}
    points = {
        name: {"state": states[name].state, "reason": states[name].reason, "config": config}
        for name, config in configs.items()
    }
    return {"points": points, "jobs": jobs, "followed": {}}


def add_missing(folder: Path, content: dict[str, Any]) -> tuple[int, int]:
    """Add to `content`, that of sweep.json, the points and jobs that have folders and are not in it.

    An older copy of the file, or that of another sweep of the same name, has other points. Returns how many points and
    jobs were added.
    """
    entries = folder.iterdir() if folder.is_dir() else ()
    points = {entry.name for entry in entries if entry.name not in content["points"] and (entry / SETTINGS).is_file()}
    known = {job["name"] for job in content["jobs"]}
    jobs = {file.parent.name for file in (folder / SLURM_FOLDER).glob(f"*/{SUBMISSION}")} - known
    if not points and not jobs:
        return 0, 0
    rebuilt = rebuild(folder)
    more_points = {name: point for name, point in rebuilt["points"].items() if name in points}
    more_jobs = [job for job in rebuilt["jobs"] if job["name"] in jobs]
    content["points"].update(more_points)
    content["jobs"] += more_jobs
    return len(more_points), len(more_jobs)


def find_damaged_submissions(folder: Path) -> dict[str, str]:
    """Return the names of the submissions in a sweep's folder whose points are not known, and why for each."""
    found = {}
    for script in sorted((folder / SLURM_FOLDER).glob("*/*submission.sh")):
        file = script.with_name(SUBMISSION)
        try:
            if load_record(file, SUBMISSION_SHAPE) is None:
                found[script.parent.name] = f"{file} is missing"
        except DamagedError as error:
            found[script.parent.name] = f"{file} {error}"
    return found


def _read_submissions(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the content of each submission.json, oldest first. Damaged ones are named in a warning."""
    files = sorted((folder / SLURM_FOLDER).glob(f"*/{SUBMISSION}"), key=_time)
    for file in files:
        if (content := read_record(file, SUBMISSION_SHAPE)) is not None:
            yield content


def _read_points(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and configuration of each point with a folder, oldest first."""
    folders = [entry for entry in folder.iterdir() if entry.is_dir() and _is_point(entry)] if folder.is_dir() else []
    for point in sorted(folders, key=lambda point: (_time(point / SETTINGS), point.name)):
        settings = read_record(point / SETTINGS, SETTINGS_SHAPE, is_sealed=True)
        config = settings["config"] if settings is not None else (point_state.read_results(point) or {}).get("config")
        if is_config(config):
            yield point.name, config
        else:
            log.warning("%s: the settings of this point are lost; the command that trains it adds it again", point)


def _is_point(folder: Path) -> bool:
    """Return whether a folder in the folder of a sweep is that of a point: one that a command has added or trained."""
    return any((folder / name).exists() for name in (SETTINGS, point_state.STATE, point_state.RESULTS))


def _describe_job(folder: Path, submission: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a submission in sweep.json. Without a script that names it, the job's id is None."""
    scripts = sorted((folder / SLURM_FOLDER / submission["name"]).glob("*_submission.sh"))
    id = scripts[0].name.partition("_")[0] if scripts else None
    entry = {"behind": [], "settings": [], "by_itself": False, **submission}
    return {"id": id, **{name: entry[name] for name in KEPT}, "packs": [list(pack) for pack in submission["packs"]]}


def _time(file: Path) -> float:
    """Return when a file was written; infinity if it does not exist."""
    try:
        return file.stat().st_mtime
    except OSError:
        return float("inf")
