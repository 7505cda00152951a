"""What Hydra's launchers have in common here: all points composed, then handed on as one sweep."""

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
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, Sweep

log = logging.getLogger(__name__)

MANY = 100  # points, which take seconds


class SweepLauncher(Launcher):
    """A launcher says in `problems` what is wrong with its settings, and in `dispatch` gets the points done."""

    is_local = True  # whether the points run on this machine
    max_points: int | None = None  # of a pack

    def __init__(self) -> None:
        self._composed: dict[str, DictConfig] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if len(job_overrides) >= MANY:
            log.info("composing and checking %d points", len(job_overrides))
        configs = compose(self.hydra_context.config_loader, self.config, job_overrides, initial_job_idx)
        named = [to_named_config(config, config.hydra.overrides.task) for config in configs]
        self._composed = {name: config for (name, _), config in zip(named, configs, strict=True)}
        with env_override(dict(self.config.hydra.job.env_set)):
            launch(named, self)
        return [JobReturn() for _ in configs]

    def prepare(self, names: Sequence[str]) -> None:
        """Have Hydra make the points' folders and write what it writes there; without -m it has done so already."""
        if not self._composed:
            return
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        for name in names:
            run_job(
                hydra_context=self.hydra_context,
                task_function=lambda _: None,
                config=self._composed[name],
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Every setting of the launcher that cannot work, for a point of this configuration."""
        return []

    @abstractmethod
    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Get the points done, or on their way, and the tasks that are to follow. False if something failed."""

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Have a task on a whole sweep run elsewhere, once with each configuration. Only if not `is_local`."""
        raise NotImplementedError
