"""What a format has to define: a reader for its files, a writer, or both."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.formats.description import Description
from sae_sweeps.saes import InferenceSAE


class Reader(Protocol):
    """The names that the module of a readable format defines."""

    @property
    def FILES(self) -> tuple[str, ...]:
        """Return the names of all files that are needed from a folder."""

    def is_at(self, path: Path) -> bool:
        """Return whether a folder holds an SAE in this format."""

    def describe(self, path: Path) -> Description:
        """Return what the files declare, without reading the weights. Raises: any error if they hold no SAE."""

    def read(self, path: Path) -> InferenceSAE:
        """Return the SAE. Raises: any error if the files do not hold one."""


@dataclass(frozen=True)
class Writer:
    """How SAEs are written for a library, and the Python lines that load them there."""

    library: str
    pip: str  # what to install
    imports: str
    load: str  # with {folder} in place of the path
    normalizes: bool  # whether the library can normalise activations itself
    architectures: tuple[str, ...]  # those of config.saes.ARCHITECTURES that the library can compute
    # (folder, SAE, description, further metadata) -> the folder written to; ValueError if the format has no such SAE
    write: Callable[[Path, InferenceSAE, Description, dict[str, Any]], Path]
    takes_foreign: bool = False  # whether it takes any SAE of another library, which selects by k, thresholds or gates

    def has_architecture(self, name: str) -> bool:
        """Return whether the library can compute SAEs of this architecture."""
        return name in self.architectures or (self.takes_foreign and name not in ARCHITECTURES)
