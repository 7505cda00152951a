"""`hydra/launcher=pack`: the points on this machine, side by side where they share an activation stream."""

import time
from collections.abc import Sequence

from sae_sweeps.config import Config
from sae_sweeps.launchers.hydra_launcher import SweepLauncher
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.packs import Limits, bad_limits


class PackLauncher(SweepLauncher):
    def __init__(self, max_points: int | None = None, max_memory: float | None = None) -> None:
        super().__init__()
        self.max_points, self.max_memory = max_points, max_memory

    def find_problems(self, config: Config) -> list[ConfigError]:
        return bad_limits(self.max_points, self.max_memory)

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run them. One that fails does not stop the others."""
        from sae_sweeps.report.loaded import load_sweep
        from sae_sweeps.tasks.follow_ups import follow_up, in_order
        from sae_sweeps.tasks.report import refresh, show
        from sae_sweeps.tasks.run_packs import run_packs
        from sae_sweeps.tracking.run import finish_uploads

        began = time.monotonic()
        failures = run_packs(sweep, points, Limits.from_launcher(self.max_points, self.max_memory))
        followed = [follow_up(task, sweep, points[0].config) for task in in_order(then)]
        loaded = load_sweep(sweep)
        show(loaded, [point.name for point in points], failures, time.monotonic() - began)
        if "report" not in then:
            refresh(sweep, points[0].config, loaded)
        finish_uploads()
        return not failures and all(followed)
