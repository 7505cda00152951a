"""Reads and writes sweep.json: the points of a sweep, with configurations, states and Slurm jobs."""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.config import Config, from_json, is_config
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import ConfigError, describe_error
from sae_sweeps.runtime.held import make_folder
from sae_sweeps.runtime.paths import find_name_problem
from sae_sweeps.runtime.records import DamagedError, load_record, matches, write_record
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.point_state import DONE, WAITING, State
from sae_sweeps.sweep.rebuild import add_missing, rebuild, write_settings

log = logging.getLogger(__name__)

SHAPE = {
    "points": {str: {"state": str, "reason": (str, None), "config": is_config}},
    "jobs": [{"id": (str, None), "name": str, "task": str, "packs": [list]}],
    "followed": {str: {"state": str, "reason": (str, None), "job": (str, None)}},
}
EMPTY: dict[str, Any] = {"points": {}, "jobs": [], "followed": {}}


class Sweep:
    """A sweep in the folder `output_root/name`. Its points stay from command to command, and each command may add some.

    sweep.json has the states that the latest command saw. The current states are in the folders of the points
    (point_state.py).
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder

    @classmethod
    def from_config(cls, config: Config) -> "Sweep":
        """Return the sweep `output_root/name` of a configuration, whether or not the folder exists."""
        return cls(Path(config.output_root) / config.name)

    @property
    def file(self) -> Path:
        """Return the path of sweep.json, whether or not it exists."""
        return self.folder / "sweep.json"

    def exists(self) -> bool:
        """Return whether the folder of the sweep has a sweep.json, or points from which it can be rebuilt."""
        return self.file.exists() or bool(rebuild(self.folder)["points"])

    def read(self) -> dict[str, Any]:
        """Return the content of sweep.json. A missing or damaged one is rebuilt from the folders of points and jobs.

        points: folder name -> state, reason, config
        jobs: the submissions to Slurm, oldest first
        followed: label of a follow-up task (setting `then`) -> state, reason, job at its end

        Raises: ConfigError if the file is damaged, and there are no folders from which to rebuild it.
        """
        return self._read()[0]

    def _read(self) -> tuple[dict[str, Any], bool]:
        """Return the content of sweep.json, and whether the file itself is damaged. Raises: as `read`."""
        empty, problem = {"name": self.name, **EMPTY}, None
        try:
            content = load_record(self.file, _is_content)
        except DamagedError as error:
            content, problem = None, str(error)
        if content is not None:
            content = empty | content
            added = add_missing(self.folder, content)
            if any(added):
                points, jobs = map(pluralize, added, ("point", "job"))
                _warn_once(f"{self.file} is not up to date; {points} and {jobs} whose folders are here are added")
            return content, False
        rebuilt = rebuild(self.folder)
        points, jobs = (pluralize(len(rebuilt[name]), name[:-1]) for name in ("points", "jobs"))
        if rebuilt["points"] or rebuilt["jobs"]:
            _warn_once(f"{self.file} {problem or 'is missing'}; it is rebuilt from the folders of {points} and {jobs}")
        elif problem is not None:
            fix = "move the file away and rerun the sweep's commands"
            raise ConfigError("name", self.name, f"{self.file} {problem}", fix)
        return empty | rebuilt, problem is not None

    def points(self) -> list[Point]:
        """Return all points of the sweep, in the order in which commands added them."""
        return [
            Point(from_json(record["config"]), self.folder.absolute() / name)
            for name, record in self.read()["points"].items()
        ]

    def add(self, points: dict[str, Config]) -> None:
        """Add to sweep.json the points (folder name -> configuration) that a command is about to run.

        Each configuration is also written to the folder of the point, from which sweep.json can be rebuilt.
        """

        def change(content: dict[str, Any]) -> None:
            for name, config in points.items():
                state = DONE if point_state.is_done(self.folder / name) else WAITING
                earlier = content["points"].get(name, {})
                content["points"][name] = {**earlier, "state": state, "reason": None, "config": asdict(config)}

        self.update(change)
        for name, config in points.items():
            write_settings(self.folder / name, config)

    def set_state(self, name: str, state: str, reason: str | None = None) -> None:
        """Record the state of a point, and the reason for it, in sweep.json. `name`: folder name of the point."""
        self.set_states([name], state, reason)

    def set_states(self, names: Iterable[str], state: str, reason: str | None = None) -> None:
        """Record the same state and reason for several points in sweep.json. `names`: folder names of the points."""

        def change(content: dict[str, Any]) -> None:
            for name in content["points"].keys() & set(names):
                content["points"][name] |= {"state": state, "reason": reason}

        self.try_to_update(change)

    def record_states(self, states: Mapping[str, State], content: Mapping[str, Any] | None = None) -> None:
        """Write to sweep.json the states of points (by folder name) that have changed.

        content: the content of sweep.json when the states were read (SweepStates.content); None to read it again
        """
        recorded = (self.read() if content is None else content)["points"]
        changed = {
            name: {"state": state.state, "reason": state.reason}
            for name, state in states.items()
            if (recorded[name]["state"], recorded[name]["reason"]) != (state.state, state.reason)
        }

        def change(content: dict[str, Any]) -> None:
            for name, fields in changed.items():
                content["points"][name] |= fields

        if changed:
            self.try_to_update(change)

    def try_to_update(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Apply `change` to sweep.json; log a warning if the file cannot be written or is damaged.

        A point must not fail because of that, as the folder of the point has the current state.
        """
        try:
            self.update(change)
        except (OSError, ConfigError) as error:
            log.warning(
                "could not update sweep.json (%s). Its states may be out of date; task=status reads the current ones",
                describe_error(error),
            )

    def update(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Apply `change` to the content of sweep.json and write the file, while a lock keeps other processes out."""
        make_folder(self.folder)
        with FileLock(self.folder / ".sweep.lock"):
            content, is_damaged = self._read()
            change(content)
            if is_damaged:
                self.file.rename(self.folder / f"sweep.json.damaged-{time.time_ns()}")
            write_record(self.file, content)


def _is_content(value: Any) -> bool:
    """Return whether a JSON value is the content of a sweep.json. Those of earlier versions lack some entries."""
    if not isinstance(value, dict) or "points" not in value or not matches(EMPTY | value, SHAPE):
        return False
    return not any(map(find_name_problem, value["points"]))


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
