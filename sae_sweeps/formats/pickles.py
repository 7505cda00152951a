"""Reads tensors from a file of torch, which is a pickle: no code in it is run, and no size in it is believed.

Pickles can run code. torch's restricted loader (`weights_only`) accepts little more than tensors. A few bytes may still
describe tensors of any size: repeated entries, a storage that grows to the shape, compressed zeros. So the shapes are
read first, without the numbers, and together the tensors can be no larger than the file.
"""

import pickle
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.formats.files import Header, SAEFileError, read_or_explain
from sae_sweeps.runtime.file_faults import DOWNLOAD_AGAIN, explain_unreadable


def read_pickle_headers(file: Path) -> dict[str, Header]:
    """Return the shapes and types of the named tensors in a file of torch, without reading their numbers.

    Raises: SAEFileError if the file holds anything else, or tensors that are larger than the file.
    """
    with read_or_explain(file):
        is_zip = _is_zip(file)
        if is_zip:
            _require_uncompressed(file)
        state = _load(file, "meta", header_only=not is_zip)
        stored = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in state.values()}
        is_repeated = any(tensor.nbytes > tensor.untyped_storage().nbytes() for tensor in state.values())
        if is_repeated or sum(stored.values()) > file.stat().st_size:
            problem = f"{file.name} describes tensors that are larger than what it holds of them"
            raise SAEFileError(problem, "save copies of the tensors (tensor.clone()), or name another SAE")
    return {name: Header(tuple(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in state.items()}


def read_pickle(file: Path) -> dict[str, Tensor]:
    """Return the named tensors in a file of torch, on the CPU. Check their headers first. Raises: SAEFileError."""
    with read_or_explain(file):
        return _load(file, "cpu")


def _is_zip(file: Path) -> bool:
    """Return whether a file of torch is a zip archive, as all but old ones. Raises: ValueError if it is neither."""
    with open(file, "rb") as stream:
        start = stream.read(2)
    if start != b"PK" and start[:1] != pickle.PROTO:
        raise ValueError("it begins neither as a zip archive nor as a pickle")
    return start == b"PK"


def _require_uncompressed(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, as torch compresses no file")


def _load(file: Path, device: str, header_only: bool = False) -> dict[str, Tensor]:
    """Return a dictionary of named tensors.

    header_only: keep torch from reading numbers in a file that is no zip archive, for which `device` is not enough
    Raises: SAEFileError if the file holds anything else.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode() if header_only else nullcontext():
            state: Any = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        if explain_unreadable(file, ValueError())[1] != DOWNLOAD_AGAIN:
            raise  # it is something else altogether
        problem = f"{file.name} is damaged or holds more than tensors; no code in it was run"
        raise SAEFileError(problem, "download or copy it again, or save a dictionary of tensors alone") from None
    is_plain = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not is_plain or not all(isinstance(one, Tensor) and one.layout == torch.strided for one in state.values()):
        raise SAEFileError(f"{file.name} does not hold a dictionary of named tensors")
    return dict(state)
