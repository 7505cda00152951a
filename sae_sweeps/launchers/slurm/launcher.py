"""`hydra/launcher=slurm`: submits packs of points as job arrays, and with `wait` shows progress until the jobs end."""

import functools
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import POINT_TASKS, STUDY_TASKS
from sae_sweeps.launchers.hydra_launcher import SweepLauncher
from sae_sweeps.launchers.slurm.settings import Settings, find_unreadable
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import ConfigError, RefusedError, SlurmError
from sae_sweeps.sweep import Point, Sweep, slurm_queue
from sae_sweeps.sweep.point_state import ENDED_WELL


class SlurmLauncher(SweepLauncher):
    """A launcher whose points and tasks run as Slurm jobs."""

    is_local = False

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings))
        self.settings = Settings(**plain)
        self.max_points = self.settings.max_points
        self.waits = self.settings.wait
        self.device_type = "cuda" if self.settings.asks_for_gpus else "cpu"

    def find_problems(self, config: Config) -> list[ConfigError]:
        """Return an error for every launcher setting that cannot work, a folder that sbatch misreads, and no arrays."""
        found = self.settings.find_problems()
        folder = str(Sweep.from_config(config).folder.absolute())
        if (problem := find_unreadable(folder, "%\\")) is not None:
            setting = "name" if find_unreadable(config.name, "%\\") is not None else "output_root"
            fix = f"choose a {'name' if setting == 'name' else 'path'} without it"
            found.append(ConfigError(setting, folder, problem, fix))
        if config.task.name in POINT_TASKS + STUDY_TASKS and (error := self._cluster_problem) is not None:
            found.append(error)
        return found

    @functools.cached_property
    def _cluster_problem(self) -> ConfigError | None:
        """Return an error if the cluster does not answer or allows no job arrays; None otherwise."""
        try:
            slurm_queue.max_array_size()
        except SlurmError as error:
            return ConfigError("hydra/launcher", "slurm", error.cause, error.fix)
        return None

    def submit_task(self, sweep: Sweep, task: str, configs: Sequence[Config]) -> None:
        """Submit a study task as a job, once per configuration, and print the job's id.

        Raises: RefusedError if Slurm does not answer or refuses the job.
        """
        from sae_sweeps.launchers.slurm.submission import submit_task
        from sae_sweeps.report import status

        try:
            job = submit_task(sweep, task, configs, self.settings)
        except SlurmError as error:
            raise RefusedError([f"Slurm: {error}"]) from None
        line = f"submitted {task}: job {job}"
        if job is None:
            line = "all studies are already queued or running, so no job was submitted"
        console.print(line, markup=False, soft_wrap=True)
        console.print(f"to see the progress: {status.command(sweep)}", markup=False, soft_wrap=True)

    def dispatch(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Submit the points that are not done, queued or running, and the follow-up tasks in `then`.

        Returns True; with the setting `wait`, returns whether all points and tasks are done when the jobs have ended.
        Raises: RefusedError if Slurm does not answer or refuses a job. KeyboardInterrupt if Ctrl-C ends the wait and
        the sweeper needs the results.
        """
        from sae_sweeps.launchers.slurm.submission import submit
        from sae_sweeps.report import status

        try:
            submitted = submit(sweep, points, then, self.settings)
        except SlurmError as error:
            raise RefusedError([f"Slurm: {error}"]) from None
        try:  # from here on Ctrl-C leaves the jobs running
            for line in submitted.lines():
                console.print(line, markup=False, soft_wrap=True)
            self.start_jobs(points)
            if self.settings.wait:
                return self._wait_for(sweep, points, then)
        except KeyboardInterrupt:
            console.print("the command has ended, and the jobs continue")
            if self.reports_results:
                raise
        console.print(f"to see the progress: {status.command(sweep)}", markup=False, soft_wrap=True)
        return True

    def _wait_for(self, sweep: Sweep, points: Sequence[Point], then: Sequence[str]) -> bool:
        """Show the progress until no job is left, and end Hydra's jobs. Returns whether all points and tasks are done.

        Raises: KeyboardInterrupt at Ctrl-C; the jobs continue.
        """
        from sae_sweeps.launchers.slurm.follow import follow

        seen = follow(sweep)
        states = [seen.points[point.name] for point in points]
        for point, state in zip(points, states, strict=True):
            self.end_job(point, None if state.state in ENDED_WELL else state.reason or state.state)
        follow_ups = [seen.follow_ups[task] for task in then if task in seen.follow_ups]
        return all(outcome.state in ENDED_WELL for outcome in [*states, *follow_ups])
