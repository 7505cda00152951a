"""`hydra/launcher=slurm`: the points as job arrays of packs, submitted and left, or followed to their end."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from sae_sweeps.config import Config
from sae_sweeps.launchers.hydra_launcher import SweepLauncher
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import ConfigError, RefusedError, SlurmError
from sae_sweeps.sweep import Point, Sweep


class SlurmLauncher(SweepLauncher):
    is_local = False

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        self.settings = Settings(**plain)
        self.max_points = self.settings.max_points

    def find_problems(self, config: Config) -> list[ConfigError]:
        found = self.settings.find_problems()
        folder = str(Sweep.from_config(config).folder.absolute())
        if "%" in folder:
            found.append(
                ConfigError("output_root", folder, "has a %, which sbatch replaces in paths", "a path without")
            )
        return found

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        from sae_sweeps.launchers.slurm.submission import submit_task
        from sae_sweeps.report import status

        try:
            job = submit_task(sweep, task, configs, self.settings)
        except SlurmError as error:
            raise RefusedError([f"Slurm: {error}"]) from None
        told = "all are under way; there is nothing to submit" if job is None else f"submitted {task}: job {job}"
        console.print(told, markup=False, soft_wrap=True)
        console.print(f"see how it goes: {status.command(sweep)}", markup=False, soft_wrap=True)

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Submit what is neither done nor under way. With `wait`, follow the jobs; False then if a point is undone."""
        from sae_sweeps.launchers.slurm.follow import follow
        from sae_sweeps.launchers.slurm.submission import submit
        from sae_sweeps.report import status

        try:
            submitted = submit(sweep, points, then, self.settings)
        except SlurmError as error:
            raise RefusedError([f"Slurm: {error}"]) from None
        for line in submitted.lines():
            console.print(line, markup=False, soft_wrap=True)
        if self.settings.wait:
            try:
                return follow(sweep, [point.name for point in points], then)
            except KeyboardInterrupt:
                console.print("the jobs go on without this command")
        console.print(f"see how it goes: {status.command(sweep)}", markup=False, soft_wrap=True)
        return True
