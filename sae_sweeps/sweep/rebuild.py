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
from sae_sweeps.runtime.records import read_record, write_record
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
    if to_json(read_record(folder / SETTINGS, SETTINGS_SHAPE)) != to_json(content):
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
        settings = read_record(point / SETTINGS, SETTINGS_SHAPE)
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
