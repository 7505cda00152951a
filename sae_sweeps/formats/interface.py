"""What a format has to define: a reader for its files, a writer, or both."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
    # (folder, SAE, description, further metadata) -> the folder written to; ValueError if the format has no such SAE
    write: Callable[[Path, InferenceSAE, Description, dict[str, Any]], Path]
