"""A point of a sweep: its configuration and its folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.config import Config

IDENTITY = "wandb_run.json"  # in a point's folder: the run that it has in W&B


@dataclass(frozen=True)
class Point:
    """One SAE of a sweep, and the folder it has there."""

    config: Config
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


OnFinished = Callable[[Point, Exception | None], None]  # called with a point and why it failed; None: it is done
