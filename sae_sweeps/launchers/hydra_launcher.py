"""The base class of our Hydra launchers, which composes all points of a command and launches them as one sweep."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, env_override, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config import Config
from sae_sweeps.config.identity import to_named_config
from sae_sweeps.launchers.composition import compose
from sae_sweeps.launchers.launch import launch
from sae_sweeps.launchers.leaving_out import leave_out
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.storage import is_forbidden
from sae_sweeps.sweep import Point, Sweep

log = logging.getLogger(__name__)

MIN_LOGGED = 100  # number of points from which a log line is shown, because composing and checking takes seconds


class SweepLauncher(Launcher):
    """A Hydra launcher. A subclass checks its settings in `find_problems` and runs or submits points in `dispatch`."""

    is_local = True  # whether the points run on this machine
    device_type: str | None = None  # of the devices that the points run on, such as "cuda"; None: not known
    max_points: int | None = None  # maximum number of points per pack; None: no limit

    def __init__(self) -> None:
        self._composed: dict[str, DictConfig] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context, task function and configuration for `launch`. Hydra calls this first."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose one point per list of overrides, and launch those that `leave_out` leaves. Hydra calls this.

        Returns one empty result per point, because Hydra expects results; the real ones are in the points' folders.
        """
        if len(job_overrides) >= MIN_LOGGED:
            log.info("composing and checking %d points", len(job_overrides))
        composed = compose(self.hydra_context.config_loader, self.config, job_overrides, initial_job_idx)
        configs = leave_out(composed)
        named = [to_named_config(config, config.hydra.overrides.task) for config in configs]
        self._composed = {name: config for (name, _), config in zip(named, configs, strict=True)}
        with env_override(dict(self.config.hydra.job.env_set)):
            launch(named, self, left_out=len(composed) - len(configs))
        return [JobReturn() for _ in configs]

    def prepare(self, names: Sequence[str]) -> None:
        """Create the points' folders, with Hydra's own files in each. Without -m, Hydra has already done so.

        names: folder names of the points
        """
        if not self._composed:
            return
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        for name in names:
            try:
                run_job(
                    hydra_context=self.hydra_context,
                    task_function=lambda _: None,
                    config=self._composed[name],
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            except OSError as error:
                if not is_forbidden(error):
                    raise  # where this point cannot be written, it fails when it runs, and the others continue

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return an error for each launcher setting that cannot work for a point with this configuration."""
        return []

    @abstractmethod
    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Run or submit the points, then the follow-up tasks in `then`. Returns False if a point or task failed."""

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Submit a task on the whole sweep as a job, once per configuration. Called only if `is_local` is False."""
        raise NotImplementedError
