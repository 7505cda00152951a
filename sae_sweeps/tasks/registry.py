"""The functions of the tasks in config/tasks.py. Each is imported only when it is needed: most of them import torch."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from sae_sweeps.config import Config
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.point import OnFinished

if TYPE_CHECKING:
    from sae_sweeps.runtime.progress import SweepProgress
    from sae_sweeps.tasks.study import Study

PlanStudies = Callable[[Sweep, Config], tuple[list["Study"], str]]


class PointTask(Protocol):
    """Runs points that share an activation stream.

    progress: the display that the points add their lines to
    on_finished: called with each point and its error, None if the point is done
    Raises: an error that no point can run without fixing.
    """

    def __call__(
        self, points: Sequence[Point], limits: Limits, progress: "SweepProgress", on_finished: OnFinished
    ) -> None: ...


class SweepTask(Protocol):
    """Runs on a whole sweep. Returns why parts of it failed. Raises: NotRunError if it has nothing to run on."""

    def __call__(self, sweep: Sweep, config: Config) -> list[str]: ...


def load_point_task(name: str) -> PointTask:
    """Return the function that runs a task of kind `point`."""
    return _module(name).run


def load_sweep_task(name: str) -> SweepTask:
    """Return the function that runs a task of any other kind."""
    return _module(name).run


def load_plan_studies(name: str) -> PlanStudies:
    """Return the function that lists the studies a command asks for, with a sentence on those that cannot be run."""
    return _module(name).plan_studies


def _module(name: str) -> ModuleType:
    """Import a task's module, with a literal import that tools can see. Raises: KeyError if there is no such task."""
    match name:
        case "train":
            from sae_sweeps.tasks import train

            return train
        case "status":
            from sae_sweeps.tasks import status

            return status
        case "report":
            from sae_sweeps.tasks import report

            return report
        case "sync":
            from sae_sweeps.tasks import sync

            return sync
        case "wandb_workspace":
            from sae_sweeps.tasks import wandb_workspace

            return wandb_workspace
        case "export":
            from sae_sweeps.tasks import export

            return export
        case "publish":
            from sae_sweeps.tasks import publish

            return publish
        case "stitch":
            from sae_sweeps.tasks import stitch

            return stitch
        case "meta_sae":
            from sae_sweeps.tasks import meta_sae

            return meta_sae
        case "latents":
            from sae_sweeps.tasks import latents

            return latents
        case "evaluate":
            from sae_sweeps.tasks import evaluate

            return evaluate
    raise KeyError(name)
