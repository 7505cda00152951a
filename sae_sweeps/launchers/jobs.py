"""The points of a command as Hydra's jobs: the files in their folders, their callbacks, and what a sweeper gets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from sae_sweeps.config.identity import to_named_config
from sae_sweeps.config.tasks import POINT_TASKS
from sae_sweeps.runtime.errors import FailedPointError
from sae_sweeps.runtime.storage import is_forbidden
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.objective import read_objective
from sae_sweeps.sweep.point_state import PRUNED, read_state


class Job:
    """A composed point as a job of Hydra. `result` has the status UNKNOWN until the point has ended.

    Hydra's `run_job` would be the whole life of a job, one after another. The points of a pack train side by side.
    """

    def __init__(self, context: HydraContext, task_function: TaskFunction, composed: DictConfig) -> None:
        self.context, self.task_function, self.composed = context, task_function, composed
        self.name, self.config = to_named_config(composed, composed.hydra.overrides.task)
        self.result = JobReturn(overrides=list(composed.hydra.overrides.task))

    @property
    def folder(self) -> Path:
        """Return the folder of the point, whether or not it exists."""
        return Sweep.from_config(self.config).folder.absolute() / self.name

    def prepare(self) -> None:
        """Create the point's folder with Hydra's files. A point that cannot be written fails when it runs."""
        try:
            self.result = run_job(
                hydra_context=replace(self.context, callbacks=Callbacks()),
                task_function=lambda _: None,
                config=self.composed,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except OSError as error:
            if not is_forbidden(error):
                raise
        self.result.status, self.result.working_dir = JobStatus.UNKNOWN, str(self.folder)

    def start(self) -> None:
        """Call Hydra's callbacks `on_job_start`."""
        with self._current():
            self.context.callbacks.on_job_start(config=self.composed, task_function=self.task_function)

    def end(self, reason: str | None) -> None:
        """Set the result, then call Hydra's callbacks `on_job_end`. `reason`: why the point failed; None if done"""
        if reason is not None:
            self.fail(f"{self.name}: {reason}")
        else:
            self.complete()
        with self._current():
            self.context.callbacks.on_job_end(config=self.composed, job_return=self.result)

    def complete(self) -> None:
        """Set the result of a job that has ended well: the objective of the point; None if pruned, or another task."""
        has_results = self.config.task.name in POINT_TASKS and read_state(self.folder).state != PRUNED
        try:
            self.result.return_value = read_objective(self.config, self.folder) if has_results else None
            self.result.status = JobStatus.COMPLETED
        except FailedPointError as error:
            self.fail(str(error))

    def fail(self, message: str) -> None:
        """Set the result of a job that has no objective: an exception, which a sweeper gets when it asks."""
        self.result.return_value = FailedPointError(message)
        self.result.status = JobStatus.FAILED

    def leave_out(self) -> None:
        """Set the result of a job that `leave_out` names: an error for a sweeper that asks for its objective."""
        if self.config.objective is None:
            self.result.status = JobStatus.COMPLETED
        else:
            self.fail(f"{self.name}: was not run, because an entry of leave_out matches it")

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make this job the one of HydraConfig, as it is during a job of Hydra."""
        hydra = HydraConfig.instance()
        earlier = hydra.cfg
        hydra.set_config(self.composed)
        try:
            yield
        finally:
            hydra.cfg = earlier
