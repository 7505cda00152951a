"""What `launch` needs of a launcher: somewhere to run points and tasks. It names no class of Hydra's."""

from collections.abc import Sequence
from typing import Protocol

from sae_sweeps.config import Config
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, Sweep


class Launcher(Protocol):
    """Runs the points of a sweep, on this machine or as jobs. `hydra/launcher` chooses one."""

    @property
    def is_local(self) -> bool:
        """Whether the points run on this machine."""

    @property
    def max_points(self) -> int | None:
        """The most points of a pack; None: no limit."""

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return every setting of the launcher that cannot work for a point of this configuration."""

    def prepare(self, names: Sequence[str]) -> None:
        """Create the folders of the points with these names, if Hydra has not created them."""

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the points, and the tasks that follow them. Returns False if something failed."""

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Submit a task on the whole sweep, once per configuration. Called only if not `is_local`."""
