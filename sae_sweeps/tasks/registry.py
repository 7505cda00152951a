"""Loads the functions that run the tasks of config/tasks.py, when they are needed: most task modules import torch."""

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
    """A function that runs a task on points that share an activation stream.

    progress: the display to which each point adds a line
    on_finished: called once per point, with the point and the error with which it failed (None: the point is done)
    Raises: an error that affects all points, for example if the language model cannot be loaded.
    """

    def __call__(
        self, points: Sequence[Point], limits: Limits, progress: "SweepProgress", on_finished: OnFinished
    ) -> None: ...


class SweepTask(Protocol):
    """A function that runs a task on a whole sweep. Returns one message per part of the task that failed.

    Raises: NotRunError if the sweep lacks the task's input, such as trained SAEs.
    """

    def __call__(self, sweep: Sweep, config: Config) -> list[str]: ...


def load_point_task(name: str) -> PointTask:
    """Return the function that runs a task on points (`train`). Raises: KeyError if there is no such task."""
    return _module(name).run


def load_sweep_task(name: str) -> SweepTask:
    """Return the function that runs a task on a whole sweep, such as `report`. Raises: KeyError if there is none."""
    return _module(name).run


def load_plan_studies(name: str) -> PlanStudies:
    """Return the function that plans the studies of a study task, such as `stitch`, without running them.

    It returns the list of studies, and a sentence on studies that cannot run ("" if all can).
    Raises: KeyError if there is no such task.
    """
    return _module(name).plan_studies


def _module(name: str) -> ModuleType:
    """Import and return the module of a task, literally, so that tools see it. Raises: KeyError if there is none."""
    match name:
        case "train":
            from sae_sweeps.tasks import train

            return train
        case "status":
            from sae_sweeps.tasks import status

            return status
        case "remove":
            from sae_sweeps.tasks import remove

            return remove
        case "report":
            from sae_sweeps.tasks import report

            return report
        case "scaling":
            from sae_sweeps.tasks import scaling

            return scaling
        case "sync":
            from sae_sweeps.tasks import sync

            return sync
        case "wandb_workspace":
            from sae_sweeps.tasks import wandb_workspace

            return wandb_workspace
    return _saes_module(name)


def _saes_module(name: str) -> ModuleType:
    """Import and return the module of a task on trained SAEs. Raises: KeyError if there is none."""
    match name:
        case "export":
            from sae_sweeps.tasks import export

            return export
        case "publish":
            from sae_sweeps.tasks import publish

            return publish
        case "stitch":
            from sae_sweeps.tasks import stitch

            return stitch
        case "join":
            from sae_sweeps.tasks import join

            return join
        case "match":
            from sae_sweeps.tasks import match

            return match
        case "meta_sae":
            from sae_sweeps.tasks import meta_sae

            return meta_sae
        case "meta_sizes":
            from sae_sweeps.tasks import meta_sizes

            return meta_sizes
    return _measuring_module(name)


def _measuring_module(name: str) -> ModuleType:
    """Import and return the module of a task that measures one SAE at a time. Raises: KeyError if there is none."""
    match name:
        case "latents":
            from sae_sweeps.tasks import latents

            return latents
        case "evaluate":
            from sae_sweeps.tasks import evaluate

            return evaluate
        case "saebench":
            from sae_sweeps.tasks import saebench

            return saebench
        case "steer":
            from sae_sweeps.tasks import steer

            return steer
        case "probe":
            from sae_sweeps.tasks import probe

            return probe
    raise KeyError(name)
