"""`hydra/launcher=pack`: runs the points on this machine, those with the same activation stream side by side."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sae_sweeps.config import Config
from sae_sweeps.launchers.hydra_launcher import SweepLauncher
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.packs import Limits, check_limits


class PackLauncher(SweepLauncher):
    """A launcher that runs packs (points that share an activation stream) in this process, one after another."""

    def __init__(self, max_points: int | None = None, max_memory: float | None = None) -> None:
        super().__init__()
        self.max_points, self.max_memory = max_points, max_memory

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return an error for max_points or max_memory if the value cannot work."""
        return check_limits(self.max_points, self.max_memory)

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run the points, then the follow-up tasks in `then`, then the report. A failure does not stop the rest.

        Returns False if a point or task failed.
        """
        from sae_sweeps.tasks.run_packs import run_packs

        began = time.monotonic()
        limits = Limits.from_launcher(self.max_points, self.max_memory)
        failures = run_packs(sweep, points, limits, self.start_jobs, self.end_job)
        return self._finish_points(sweep, points, then, failures, began)

    def follow_up(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run the follow-up tasks in `then`, then the report on these points. Returns False if a task failed."""
        return self._finish_points(sweep, points, then, {}, time.monotonic())

    def _finish_points(
        self, sweep: Sweep, points: Sequence[Point], then: Sequence[str], failures: Mapping[str, str], began: float
    ) -> bool:
        """Run the follow-up tasks in `then`, then the report. Returns False if a point or task failed.

        failures: folder name of a failed point -> reason
        began: when the points started, by `time.monotonic`
        """
        from sae_sweeps.report.loaded import load_sweep
        from sae_sweeps.tasks.follow_ups import run_follow_up, sort_studies_first
        from sae_sweeps.tasks.report import show
        from sae_sweeps.tracking.run import finish_uploads

        config = replace(points[0].config, then=list(then))
        followed = [run_follow_up(task, sweep, config) for task in sort_studies_first(then)]
        show(load_sweep(sweep), [point.name for point in points], failures, time.monotonic() - began, config)
        finish_uploads()
        return not failures and all(followed)
