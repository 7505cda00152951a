"""`hydra/launcher=local`: the points of a multirun one after another in this process.

All points are composed and checked before the first one runs; one that fails does not stop the others.
"""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class LocalLauncher(Launcher):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from sae_sweeps import app

        loader = self.hydra_context.config_loader
        configs = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        for index, config in enumerate(configs, start=initial_job_idx):
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(index), index

        def run(config: DictConfig) -> JobReturn:
            return run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )

        return app.run_sweep(configs, run)
