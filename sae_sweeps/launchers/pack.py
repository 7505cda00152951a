"""`hydra/launcher=pack`: the points of a multirun on this machine, side by side where they share an activation stream.

All points are composed and checked before the first one runs; one that fails does not stop the others.
"""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, env_override, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from sae_sweeps import app
from sae_sweeps.packs import limits_of


class PackLauncher(Launcher):
    def __init__(self, max_points: int | None = None, max_memory: float | None = None) -> None:
        self._max_points, self._max_memory = max_points, max_memory

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        loader = self.hydra_context.config_loader
        configs = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        for index, config in enumerate(configs, start=initial_job_idx):
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(index), index

        def prepare(config: DictConfig) -> JobReturn:
            """Have Hydra make the point's folder and write what it writes there."""
            return run_job(
                hydra_context=self.hydra_context,
                task_function=lambda _: None,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )

        with env_override(dict(self.config.hydra.job.env_set)):
            return app.run_sweep(configs, prepare, limits=limits_of(self._max_points, self._max_memory))
