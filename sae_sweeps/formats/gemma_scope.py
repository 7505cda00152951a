"""Gemma Scope's files (arXiv:2408.05147): params.npz of a JumpReLU SAE. The path names the model and hook:

google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz
"""

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.formats.description import Description
from sae_sweeps.formats.files import (
    UNIT_SCALES,
    Header,
    SAEFileError,
    read_or_explain,
    require_shapes,
    require_tensors,
    require_unit_scales,
)
from sae_sweeps.saes import InferenceSAE

WEIGHTS = "params.npz"
FILES = (WEIGHTS,)
LONGEST_HEADER = 10_000  # bytes; numpy writes 118
KEYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
# hooks by the kind of SAE in the name of the repository
HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


def is_at(path: Path) -> bool:
    """Return whether a folder contains params.npz, the file of a Gemma Scope SAE."""
    return (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the sizes of an SAE from the headers of its arrays, and the model and hook that the path names.

    Raises: SAEFileError if an array is missing, left over, or of another shape than the others, or if the path names a
    transcoder or token embeddings.
    """
    with read_or_explain(path / WEIGHTS), zipfile.ZipFile(path / WEIGHTS) as archive:
        headers = _read_headers(archive)
    dict_size, d_in = require_arrays(WEIGHTS, headers)
    where = str(path.absolute())
    model = re.search(r"gemma-scope-([0-9]+b)-(pt|it)-(res|mlp|att)", where)
    layer = re.search(r"layer_([0-9]+)", where)
    if "embedding" in path.absolute().parts:
        raise SAEFileError(
            "the SAE was trained on token embeddings, but only hooks in transformer blocks are supported"
        )
    if re.search(r"gemma-scope-[0-9]+b-(pt|it)-transcoders", where):
        raise SAEFileError("transcoders are not supported: they reconstruct other activations than they encode")
    return Description(
        architecture="jumprelu",
        d_in=d_in,
        dict_size=dict_size,
        model=model and f"gemma-2-{model[1]}" + ("-it" if model[2] == "it" else ""),
        hook=f"blocks.{layer[1]}.{HOOKS[model[3]]}" if model and layer else None,
    )


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU in float32.

    Raises: SAEFileError if an array is missing or left over, or does not hold numbers.
    """
    with read_or_explain(path / WEIGHTS), zipfile.ZipFile(path / WEIGHTS) as archive:
        entries = _list_arrays(archive)
        require_arrays(WEIGHTS, _read_headers(archive))
        weights = {key: _read_array(archive, entries[name]) for key, name in name_arrays(entries).items()}
    return build_jumprelu(weights)


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tensor:
    with archive.open(entry) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def _list_arrays(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of an npz archive by the names of the arrays. Raises: ValueError if numpy wrote none such."""
    for entry in archive.infolist():
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is compressed as numpy compresses no file")
    return {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}


def _read_headers(archive: zipfile.ZipFile) -> dict[str, Header]:
    """Return the shapes and types of the arrays in an npz archive, of which nothing else is unpacked."""
    headers = {}
    for name, entry in _list_arrays(archive).items():
        with archive.open(entry) as stream:
            headers[name] = _read_header(stream)
    return headers


def _read_header(stream: IO[bytes]) -> Header:
    """Return the shape and type of an array. Raises: ValueError if the header is none, or is longer than any."""
    start = stream.read(12)
    is_long = np.lib.format.read_magic(io.BytesIO(start)) != (1, 0)
    length = int.from_bytes(start[8:12] if is_long else start[8:10], "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"a header has {length} bytes")
    read = np.lib.format.read_array_header_2_0 if is_long else np.lib.format.read_array_header_1_0
    shape, _, dtype = read(io.BytesIO(start[8:] + stream.read(length)))
    return Header(shape, dtype.name)


def name_arrays(names: Iterable[str]) -> dict[str, str]:
    """Return the names in a file by their usual spelling: some published files have W_enc and W_dec in lower case."""
    return {name.replace("w_", "W_", 1) if name.startswith("w_") else name: name for name in names}


def require_arrays(file: str, headers: Mapping[str, Header], dict_size: int | None = None) -> tuple[int, int]:
    """Require that a file has the arrays of a JumpReLU SAE, of fitting shapes. Raises: SAEFileError.

    dict_size: the number of latents that is declared, if any is
    Returns: the numbers of latents and of entries in an activation.
    """
    names = name_arrays(headers)
    require_tensors(file, names, KEYS, UNIT_SCALES)
    return require_shapes({key: headers[name] for key, name in names.items()}, dict_size)


def build_jumprelu(weights: Mapping[str, Tensor]) -> InferenceSAE:
    """Build the JumpReLU SAE of the tensors in KEYS. Raises: ValueError if they do not fit each other."""
    require_unit_scales(weights)
    return InferenceSAE(
        "jumprelu",
        W_enc=weights["W_enc"].mT,
        W_dec=weights["W_dec"],
        b_enc=weights["b_enc"],
        b_dec=weights["b_dec"],
        threshold=weights["threshold"],
        centers_input=False,
    )
