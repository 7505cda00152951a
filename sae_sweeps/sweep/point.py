"""A point of a sweep: its configuration and its folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.config import Config

IDENTITY = "wandb_run.json"  # in a point's folder: the id of its W&B run


@dataclass(frozen=True)
class Point:
    """One SAE of a sweep, and its folder in the sweep's folder."""

    config: Config
    folder: Path

    @property
    def name(self) -> str:
        """Return the name of the folder, which ends in a hash of the settings."""
        return self.folder.name


OnFinished = Callable[[Point, Exception | None], None]  # called with a finished point and its error, None if it is done
