"""A point of a sweep: its configuration and its folder."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.config import Config

IDENTITY = "wandb_run.json"  # in a point's folder: the id of its W&B run


@dataclass(frozen=True)
class Point:
    """One SAE of a sweep: configuration, and folder inside the folder of the sweep."""

    config: Config
    folder: Path

    @property
    def name(self) -> str:
        """Return the name of the point's folder, which ends in a hash of the settings."""
        return self.folder.name


def make_title(name: str) -> str:
    """Return the name of a point without the hash of the settings at the end. Other names are returned unchanged."""
    return re.sub(r"(?<=.)-[0-9a-f]{8}$", "", name)


OnFinished = Callable[[Point, Exception | None], None]  # called with the point, and why it failed; None if done
