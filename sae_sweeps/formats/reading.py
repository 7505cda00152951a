"""Find, describe and load trained SAEs, in the formats of several libraries.

An SAE is given as FOLDER or FORMAT:FOLDER; `registry.READERS` has the formats. Without FORMAT, the format is detected
from the files in the folder. If there is no such folder on this machine, it is looked up on the Hugging Face hub as
OWNER/REPOSITORY/FOLDER, e.g. google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from sae_sweeps.activations.hub import fetch_folder
from sae_sweeps.formats import saelens
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.files import SAEFileError, in_one_line
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.formats.registry import READERS
from sae_sweeps.runtime.devices import choose_device
from sae_sweeps.runtime.inputs import check_names, require_type
from sae_sweeps.runtime.paths import expand_folder
from sae_sweeps.saes import InferenceSAE

T = TypeVar("T")


@dataclass(frozen=True)
class Located:
    """The folder of an SAE, and the format of its files."""

    format: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        """Return the paths of the existing files in the folder that the format reads."""
        return [file for name in READERS[self.format].FILES if (file := self.folder / name).is_file()]

    def describe(self) -> Description:
        """Return the architecture, sizes, model and hook that the files declare, without loading the weights.

        Raises: SAEFileError if the files hold no SAE.
        """
        return self._try_to_read(READERS[self.format].describe)

    def read(self) -> InferenceSAE:
        """Return the SAE in the folder, on the CPU.

        Raises: SAEFileError if the files do not hold an SAE, if a number is not finite, or if the shapes do not fit
        each other or the declared sizes.
        """
        reader = READERS[self.format]
        return self._try_to_read(lambda folder: _check_sizes(reader.read(folder), reader.describe(folder)))

    def _try_to_read(self, read: Callable[[Path], T]) -> T:
        try:
            return read(self.folder)
        except Exception as error:  # readers of JSON, zip and pickle have no common exception
            found = in_one_line(error)
            raise SAEFileError(f"cannot be read as {self.format} ({found})", found.fix) from error


def _check_sizes(sae: InferenceSAE, description: Description) -> InferenceSAE:
    """Return `sae`. Raises: SAEFileError if d_in, dict_size or k differs between weights and configuration file."""
    for name in ("d_in", "dict_size", "k"):
        declared, found = getattr(description, name), getattr(sae, name)
        if None not in (declared, found) and declared != found:
            raise SAEFileError(f"the configuration file declares {name} = {declared}, but the weights have {found}")
    return sae


def locate(spec: str) -> Located:
    """Return the folder and format of an SAE. `spec` is FOLDER or FORMAT:FOLDER, on this machine or on the hub.

    The folder of a point of a sweep and a file inside the SAE's folder are accepted as well.
    Raises: SAEFileError if the folder holds no SAE, or none in FORMAT, or cannot be entered; FileNotFoundError if there
    is no such folder.
    """
    format, path = split_spec(spec)
    try:
        return _locate(format, path)
    except PermissionError as error:
        raise SAEFileError(f"cannot be read ({error.strerror})", "ask the owner for permission to read it") from None


def _locate(format: str | None, path: str) -> Located:
    readers = READERS if format is None else {format: READERS[format]}
    folder = expand_folder(path, "saved")
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        hub_name = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/(.+))?", path)
        if hub_name is None or path.startswith((".", "~", "/")):
            raise FileNotFoundError(f"{path}: there is no such folder")
        files = sorted({name for reader in readers.values() for name in reader.FILES})
        folder = fetch_folder(hub_name[1], hub_name[2] or "", files)
    folder = folder.resolve()
    if "sae_lens" in readers and saelens.is_at(folder / SAE_FOLDER):
        folder = folder / SAE_FOLDER
    found = [name for name, reader in readers.items() if reader.is_at(folder)]
    if not found:
        expected = "; ".join(f"{name}: {' and '.join(reader.FILES)}" for name, reader in readers.items())
        problem = f"holds no SAE; the folder must contain the files of one of these formats ({expected})"
        others = [name for name, reader in READERS.items() if reader.is_at(folder)]
        raise SAEFileError(problem, f"write {others[0]}: instead of {format}:" if others else None)
    return Located(found[0], folder)


def split_spec(spec: str) -> tuple[str | None, str]:
    """Split FORMAT:FOLDER into the format and the folder. The format is None if no known one comes before a colon."""
    prefix, colon, path = spec.partition(":")
    return (prefix, path) if colon and prefix in READERS else (None, spec)


@check_names
def load_sae(spec: str | Path, device: str | torch.device = "cpu") -> InferenceSAE:
    """Load a trained SAE from files, to encode and reconstruct B activations of the model's width D, (B, D).

    `spec` is the folder of an SAE or of a point of a sweep, or OWNER/REPOSITORY/FOLDER on the hub, in the format of
    SAELens, Gemma Scope, dictionary_learning or sparsify. The format is detected, unless `spec` names it,
    as in "gemma_scope:FOLDER". No code in a file is ever run.

    device: "cpu", "cuda" or "cuda:N", or "auto"

    Raises: FileNotFoundError if there is no such folder; ValueError if it holds no SAE, if the shapes do not fit each
    other or if a number is not finite; ConfigError if an argument is of another type, or the device cannot be used.
    """
    require_type("spec", spec, str | Path, "a folder", "load_sae(FOLDER), once for each SAE")
    chosen = choose_device(str(device))
    try:
        return locate(str(spec)).read().to(chosen)
    except FileNotFoundError as error:
        places = "the folder of an SAE or of a point of a sweep, or OWNER/REPOSITORY/FOLDER on the hub"
        raise FileNotFoundError(f"{error}. Fix: give {places}") from None
    except ValueError as error:
        fix = getattr(error, "fix", None)
        raise ValueError(f"{spec}: {error}" + (f". Fix: {fix}" if fix else "")) from error
