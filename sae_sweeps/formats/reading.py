"""Anyone's trained SAEs: where they lie, in which format, and what they are.

    sae_lens:FOLDER  gemma_scope:FOLDER  dictionary_learning:FOLDER  sparsify:FOLDER

The format is found out if it is not said. What is no folder here is taken for one on the Hugging Face hub: the owner
and the name of a repository and the folder in it, google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 say.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from sae_sweeps.activations.hub import fetch_folder
from sae_sweeps.formats import dictionary_learning, gemma_scope, saelens, sparsify
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.saes import InferenceSAE

T = TypeVar("T")


class Format(Protocol):
    """What a format's module has."""

    @property
    def FILES(self) -> tuple[str, ...]:
        """All that is needed of a folder."""

    def is_at(self, path: Path) -> bool: ...
    def describe(self, path: Path) -> Description: ...
    def read(self, path: Path) -> InferenceSAE: ...


FORMATS: dict[str, Format] = {
    "sae_lens": saelens,
    "gemma_scope": gemma_scope,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
}


@dataclass(frozen=True)
class Located:
    """An SAE's folder and the format of what is in it."""

    format: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        """All that is read of the folder."""
        return [file for name in FORMATS[self.format].FILES if (file := self.folder / name).is_file()]

    def describe(self) -> Description:
        """What its files declare, without reading the weights. Raises: ValueError if they hold no SAE."""
        return self._read_file(FORMATS[self.format].describe)

    def read(self) -> InferenceSAE:
        """Raises: ValueError if the files do not hold an SAE whose numbers are finite and whose shapes fit, each other
        and what is declared."""
        format = FORMATS[self.format]
        return self._read_file(lambda folder: _as_declared(format.read(folder), format.describe(folder)))

    def _read_file(self, look: Callable[[Path], T]) -> T:
        try:
            return look(self.folder)
        except Exception as error:  # readers of JSON, zip and pickle have no exception in common
            said = f"there is no {error}" if isinstance(error, KeyError) else first_line(error)
            raise ValueError(f"cannot be read as {self.format} ({said})") from error


def _as_declared(sae: InferenceSAE, declared: Description) -> InferenceSAE:
    """The SAE. Raises: ValueError if it is not of the sizes that its configuration says."""
    for name in ("d_in", "dict_size", "k"):
        said, is_so = getattr(declared, name), getattr(sae, name)
        if None not in (said, is_so) and said != is_so:
            raise ValueError(f"its configuration says that {name} is {said}, and its weights have {is_so}")
    return sae


def locate(spec: str) -> Located:
    """Where an SAE is: `spec` is a folder, of this machine or on the hub, with or without its format in front.

    Raises: ValueError if there is none, FileNotFoundError if there is no such folder.
    """
    named, path = split(spec)
    folder = Path(path).expanduser()
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        hub_name = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/(.+))?", path)
        if hub_name is None or path.startswith((".", "~", "/")):
            raise FileNotFoundError(f"{path}: there is no such folder")
        of = FORMATS.values() if named is None else [FORMATS[named]]
        wanted = sorted({name for one in of for name in one.FILES})
        folder = fetch_folder(hub_name[1], hub_name[2] or "", wanted)
    folder = folder.resolve()
    if named in (None, "sae_lens") and saelens.is_at(folder / SAE_FOLDER):
        folder = folder / SAE_FOLDER
    found = [name for name, one in FORMATS.items() if one.is_at(folder) and named in (None, name)]
    if not found:
        looked_for = {name: " and ".join(one.FILES) for name, one in FORMATS.items() if named in (None, name)}
        raise ValueError(f"holds no SAE ({'; '.join(f'{name}: {files}' for name, files in looked_for.items())})")
    return Located(found[0], folder)


def split(spec: str) -> tuple[str | None, str]:
    """The format that stands in front of a path, if one does, and the path."""
    prefix, colon, path = spec.partition(":")
    return (prefix, path) if colon and prefix in FORMATS else (None, spec)


def load_sae(spec: str | Path, device: str | torch.device = "cpu") -> InferenceSAE:
    """A trained SAE, whoever trained it, ready to encode and reconstruct activations (B, D) of its model and hook.

    `spec` is the folder of an SAE, of a point of a sweep, or on the hub as OWNER/REPOSITORY/FOLDER; in the format of
    SAELens, Gemma Scope, dictionary_learning or sparsify, which is found out unless it stands in front, as in
    "gemma_scope:FOLDER". Nothing in a file is ever run.

    Raises: FileNotFoundError if there is no such folder; ValueError if it holds no SAE, if shapes do not fit each
    other or if a number is not finite.
    """
    try:
        return locate(str(spec)).read().to(device)
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error
