"""Reads and writes sweep.json: the points of a sweep, with configurations, states and Slurm jobs."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.config import Config, from_json, is_config
from sae_sweeps.runtime.errors import ConfigError, describe_error
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.runtime.held import make_folder
from sae_sweeps.runtime.records import matches
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.point_state import DONE, WAITING, State

log = logging.getLogger(__name__)

SHAPE = {
    "points": {str: {"state": str, "reason": (str, None), "config": is_config}},
    "jobs": [{"id": (str, None), "name": str, "task": str, "packs": [list]}],
    "followed": {str: {"state": str, "reason": (str, None), "job": (str, None)}},
}


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

    def exists(self) -> bool:
        """Return whether the folder of the sweep has a sweep.json."""
        return (self.folder / "sweep.json").is_file()

    def read(self) -> dict[str, Any]:
        """Return the content of sweep.json.

        points: folder name -> state, reason, config
        jobs: the submissions to Slurm, oldest first
        followed: label of a follow-up task (setting `then`) -> state, reason, job at its end

        Raises: ConfigError if the file is damaged. It is not written again, because it may still be mended.
        """
        file = self.folder / "sweep.json"
        empty: dict[str, Any] = {"points": {}, "jobs": [], "followed": {}}
        content = read_json(file)
        if content is None and not file.exists():
            return {"name": self.name, **empty}
        if not isinstance(content, dict) or not matches({**empty, **content}, SHAPE):
            problem = f"{file} is damaged"
            fix = "move the file away and rerun the sweep's commands: points that are done keep their results"
            raise ConfigError("name", self.name, problem, fix)
        return {**empty, **content}

    def points(self) -> list[Point]:
        """Return all points of the sweep, in the order in which commands added them."""
        return [
            Point(from_json(record["config"]), self.folder.absolute() / name)
            for name, record in self.read()["points"].items()
        ]

    def add(self, points: dict[str, Config]) -> None:
        """Add to sweep.json the points (folder name -> configuration) that a command is about to run."""

        def change(content: dict[str, Any]) -> None:
            for name, config in points.items():
                state = DONE if point_state.is_done(self.folder / name) else WAITING
                earlier = content["points"].get(name, {})
                content["points"][name] = {**earlier, "state": state, "reason": None, "config": asdict(config)}

        self.update(change)

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
            content = self.read()
            change(content)
            write_json(self.folder / "sweep.json", content)
