"""The file of a sweep: sweep.json (its points, their configurations, jobs and states)."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.config import Config, from_json
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.point_state import DONE, WAITING, State

log = logging.getLogger(__name__)


class Sweep:
    """The folder `output_root/name`. Its points are kept from command to command; any may add more.

    The states in sweep.json are those that the latest command saw; the points' own folders (states.py) have the truth.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder

    @classmethod
    def from_config(cls, config: Config) -> "Sweep":
        return cls(Path(config.output_root) / config.name)

    def exists(self) -> bool:
        return (self.folder / "sweep.json").is_file()

    def read(self) -> dict[str, Any]:
        """sweep.json: its `points` (folder name -> state, configuration), its `jobs`, and the tasks that `followed`."""
        found = read_json(self.folder / "sweep.json") or {"name": self.name}
        return {"points": {}, "jobs": [], "followed": {}, **found}

    def points(self) -> list[Point]:
        """All points, in the order in which they came."""
        return [
            Point(from_json(known["config"]), self.folder.absolute() / name)
            for name, known in self.read()["points"].items()
        ]

    def add(self, points: dict[str, Config]) -> None:
        """Note the points (folder name -> configuration) that a command is about to run."""

        def change(known: dict[str, Any]) -> None:
            for name, config in points.items():
                state = DONE if point_state.is_done(self.folder / name) else WAITING
                earlier = known["points"].get(name, {})
                known["points"][name] = {**earlier, "state": state, "reason": None, "config": asdict(config)}

        self.update(change)

    def set_state(self, name: str, state: str, why: str | None = None) -> None:
        self.set_states([name], state, why)

    def set_states(self, names: Iterable[str], state: str, why: str | None = None) -> None:
        """Note what is going on."""

        def change(known: dict[str, Any]) -> None:
            for name in known["points"].keys() & set(names):
                known["points"][name] |= {"state": state, "reason": why}

        self._try_to_update(change)

    def note_states(self, seen: Mapping[str, State]) -> None:
        """Have sweep.json say what was seen of the points, where it does not say so yet."""
        known = self.read()["points"]
        changed = {
            name: {"state": state.state, "reason": state.reason}
            for name, state in seen.items()
            if (known[name]["state"], known[name]["reason"]) != (state.state, state.reason)
        }

        def change(known: dict[str, Any]) -> None:
            for name, fields in changed.items():
                known["points"][name] |= fields

        if changed:
            self._try_to_update(change)

    def _try_to_update(self, change: Callable[[dict[str, Any]], None]) -> None:
        """No point is to fail because this cannot be written: its own folder knows better."""
        try:
            self.update(change)
        except OSError as error:
            log.warning("sweep.json could not be brought up to date (%s)", describe_error(error))

    def update(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change sweep.json, one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".sweep.lock"):
            known = self.read()
            change(known)
            write_json(self.folder / "sweep.json", known)
