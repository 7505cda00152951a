"""The interface of a launcher. It is independent of Hydra."""

from collections.abc import Sequence
from typing import Protocol

from sae_sweeps.config import Config
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, Sweep


class Launcher(Protocol):
    """Runs the points of a sweep, on this machine or as jobs. `hydra/launcher` chooses one."""

    @property
    def is_local(self) -> bool:
        """Return whether the points run on this machine."""

    @property
    def max_points(self) -> int | None:
        """Return the maximum number of points in a pack, None for no limit."""

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return an error for each setting of the launcher that cannot work for a point of this configuration."""

    def prepare(self, names: Sequence[str]) -> None:
        """Create the folders of the points with these names, if Hydra has not created them."""

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the points, then the follow-up tasks. Returns False if something failed."""

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Submit a task on the whole sweep, once per configuration. Called only if not `is_local`."""
