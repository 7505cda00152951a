"""The base class of our Hydra launchers, which composes the points of a batch and launches them as one sweep."""

import logging
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, env_override
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import SWEEP_TASKS
from sae_sweeps.launchers.composition import compose
from sae_sweeps.launchers.jobs import Job
from sae_sweeps.launchers.launch import follow_up, launch
from sae_sweeps.launchers.leaving_out import leave_out
from sae_sweeps.launchers.sweepers import find_sweeper_problems, reads_results
from sae_sweeps.runtime.errors import ConfigError, RefusedError
from sae_sweeps.sweep import Point, Sweep

log = logging.getLogger(__name__)

MIN_LOGGED = 100  # number of points from which a log line is shown, because composing and checking takes seconds


class SweepLauncher(Launcher):
    """A Hydra launcher. A subclass checks its settings in `find_problems` and runs or submits points in `dispatch`.

    Our own sweeper launches all points at once, and a failure ends the command with 1. Any other sweeper reads the
    results and may launch more points: failures are then left to the sweeper, and follow-up tasks run at the end.
    """

    is_local = True  # whether the points run on this machine
    waits = True  # whether the points have ended when `dispatch` returns
    device_type: str | None = None  # of the devices that the points run on, such as "cuda"; None: not known
    max_points: int | None = None  # maximum number of points per pack; None: no limit
    config: DictConfig | None = None  # Hydra's configuration of the whole command; None without -m

    def __init__(self) -> None:
        self._jobs: list[Job] = []  # of the current batch
        self._launched: dict[str, Config] = {}  # points of all batches, whose follow-up tasks are due at the end

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context, task function and configuration for `launch`. Hydra calls this first."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        hydra_context.callbacks.callbacks.append(_AtEnd(self))

    @property
    def reports_results(self) -> bool:
        """Return whether the sweeper reads the results of the points that it launches, and may launch more."""
        return self.config is not None and reads_results(self.config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose one point per list of overrides, and launch those that `leave_out` leaves. Hydra calls this.

        Returns one result per list of overrides, of status UNKNOWN for a point that is still queued or running.
        """
        assert self.config is not None, "Hydra must call setup before launch"
        if len(job_overrides) >= MIN_LOGGED:
            log.info("composing and checking %d points", len(job_overrides))
        composed = compose(self.hydra_context.config_loader, self.config, job_overrides, initial_job_idx)
        kept = {id(config) for config in leave_out(composed, may_be_all=self.reports_results)}
        jobs = [Job(self.hydra_context, self.task_function, config) for config in composed]
        self._jobs = [job for job in jobs if id(job.composed) in kept]
        if self._jobs:
            with env_override(dict(self.config.hydra.job.env_set)):
                self._launch_jobs(left_out=len(jobs) - len(self._jobs))
        for job in jobs:
            if id(job.composed) not in kept:
                job.leave_out()
        return [job.result for job in jobs]

    def _launch_jobs(self, left_out: int) -> None:
        """Launch the jobs of the current batch. Exits with 1 if one failed and the sweeper does not ask for results."""
        assert self.config is not None
        named = [(job.name, job.config) for job in self._jobs]
        if problems := find_sweeper_problems(self.config, self._jobs[0].config, waits=self.waits):
            raise RefusedError([str(problem) for problem in problems])
        is_done = launch(named, self, left_out, follows_up=not self.reports_results)
        if not is_done and not self.reports_results:
            sys.exit(1)
        if self.reports_results:
            self._launched |= dict(named)
        if self._jobs[0].config.task.name in SWEEP_TASKS:
            for job in self._jobs:
                job.complete()

    def finish(self) -> None:
        """Run the follow-up tasks of all batches, unless each batch has run its own. Exits with 1 if one failed."""
        self._jobs = []
        if self._launched and not follow_up(self._launched, self):
            sys.exit(1)

    def prepare(self, names: Sequence[str]) -> None:
        """Create the points' folders, with Hydra's own files in each. Without -m, Hydra has already done so.

        names: folder names of the points
        """
        if self.config is None:
            return
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        for job in self._jobs:
            if job.name in names:
                job.prepare()

    def start_jobs(self, points: Sequence[Point]) -> None:
        """Call Hydra's callbacks for the start of these points."""
        names = {point.name for point in points}
        for job in self._jobs:
            if job.name in names:
                job.start()

    def end_job(self, point: Point, reason: str | None) -> None:
        """Set the result of a point and call Hydra's callbacks. `reason`: why the point failed; None if it is done"""
        for job in self._jobs:
            if job.name == point.name:
                job.end(reason)

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return an error for each launcher setting that cannot work for a point with this configuration."""
        return []

    @abstractmethod
    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the points, then the follow-up tasks in `then`. Returns False if a point or task failed.

        Calls `start_jobs` when points start, and `end_job` for each that has ended.
        """

    def follow_up(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the follow-up tasks in `then`, after these points are done. Returns False if a task failed."""
        return self.dispatch(sweep, points, then)

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Submit a task on the whole sweep as a job, once per configuration. Called only if `is_local` is False."""
        raise NotImplementedError


class _AtEnd(Callback):
    """Hydra's callback at the end of a command, which no sweeper announces to its launcher."""

    def __init__(self, launcher: SweepLauncher) -> None:
        self.launcher = launcher

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Run the follow-up tasks that are due. Exits with 1 if one fails or is refused: Hydra only warns of errors."""
        try:
            self.launcher.finish()
        except RefusedError as refused:
            sys.exit("\n".join(f"error: {line}" for line in refused.lines))
