"""The interface of a launcher, independent of Hydra."""

from collections.abc import Sequence
from typing import Protocol

from sae_sweeps.config import Config
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, Sweep


class Launcher(Protocol):
    """Runs the points of a sweep, on this machine or as Slurm jobs. The setting `hydra/launcher` chooses a launcher."""

    @property
    def is_local(self) -> bool:
        """Return whether the points run on this machine."""

    @property
    def device_type(self) -> str | None:
        """Return the type of the devices that the points run on, such as "cuda"; None if the launcher does not say."""

    @property
    def max_points(self) -> int | None:
        """Return the maximum number of points in a pack (points that train side by side); None: no limit."""

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return an error for each launcher setting that cannot work for a point with this configuration."""

    def prepare(self, names: Sequence[str]) -> None:
        """Create the points' folders if Hydra has not created them. `names`: folder names of the points."""

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the points, then the follow-up tasks in `then`. Returns False if a point or task failed."""

    def follow_up(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the follow-up tasks in `then`, after these points are done. Returns False if a task failed."""

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Submit a task on the whole sweep as a job, once per configuration. Called only if `is_local` is False."""
