"""What a format has to define: a reader for its files, a writer, or both."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.formats.description import Description
from sae_sweeps.saes import InferenceSAE


class Reader(Protocol):
    """The functions and constants that the module of a readable format defines."""

    @property
    def FILES(self) -> tuple[str, ...]:
        """Return the names of all files that are read from an SAE's folder."""

    def is_at(self, path: Path) -> bool:
        """Return whether a folder holds an SAE in this format."""

    def describe(self, path: Path) -> Description:
        """Return the architecture, sizes, model and hook that the files declare, without loading the weights.

        Raises: an exception of any class if the files hold no SAE; `reading.Located` makes it a ValueError.
        """

    def read(self, path: Path) -> InferenceSAE:
        """Return the SAE in the folder `path`, on the CPU.

        Raises: an exception of any class if the files hold no SAE; `reading.Located` makes it a ValueError.
        """


@dataclass(frozen=True)
class Writer:
    """How SAEs are written for a library, and the Python lines that load them there."""

    library: str
    pip: str  # requirement that pip installs the library with
    imports: str  # lines that import what `load` uses
    load: str  # lines that load an SAE, with {folder} in place of the path as a Python string
    normalizes: bool  # whether the library can normalise activations itself
    architectures: tuple[str, ...]  # names in config.saes.ARCHITECTURES that the library can compute
    # (folder, SAE, description, further metadata) -> the files that were written, first one in the folder that `load`
    # takes: `folder` or one inside; ValueError if the format has no such SAE
    write: Callable[[Path, InferenceSAE, Description, dict[str, Any]], list[Path]]
    takes_foreign: bool = False  # whether the library can compute every SAE that was read from another library

    def has_architecture(self, name: str) -> bool:
        """Return whether the library can compute SAEs of the architecture `name`."""
        return name in self.architectures or (self.takes_foreign and name not in ARCHITECTURES)
