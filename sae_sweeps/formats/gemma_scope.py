"""Gemma Scope's files (arXiv:2408.05147): params.npz of a JumpReLU SAE. The path names the model and hook:

google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.formats.description import Description
from sae_sweeps.formats.files import UNIT_SCALES, SAEFileError, read_or_explain, require_tensors, require_unit_scales
from sae_sweeps.saes import InferenceSAE

WEIGHTS = "params.npz"
FILES = (WEIGHTS,)
KEYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
# hooks by the kind of SAE in the name of the repository
HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


def is_at(path: Path) -> bool:
    """Return whether a folder contains params.npz, the file of a Gemma Scope SAE."""
    return (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the sizes of an SAE from the header of W_dec, and the model and hook that the path names.

    Raises: SAEFileError if an array is missing or left over, if W_dec is no matrix, or if the path names a transcoder
    or token embeddings.
    """
    dict_size, d_in = _shape_of_decoder(path)
    where = str(path.absolute())
    model = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att)", where)
    layer = re.search(r"layer_(\d+)", where)
    if "embedding" in path.absolute().parts:
        raise SAEFileError(
            "the SAE was trained on token embeddings, but only hooks in transformer blocks are supported"
        )
    if re.search(r"gemma-scope-\d+b-(pt|it)-transcoders", where):
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
    with read_or_explain(path / WEIGHTS), np.load(path / WEIGHTS, allow_pickle=False) as file:
        names = name_arrays(file.files)
        require_tensors(WEIGHTS, names, KEYS, UNIT_SCALES)
        weights = {key: torch.from_numpy(np.asarray(file[name], dtype=np.float32)) for key, name in names.items()}
    return build_jumprelu(weights)


def name_arrays(names: Iterable[str]) -> dict[str, str]:
    """Return the names in a file by their usual spelling: some published files have W_enc and W_dec in lower case."""
    return {name.replace("w_", "W_", 1) if name.startswith("w_") else name: name for name in names}


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


def _shape_of_decoder(path: Path) -> tuple[int, int]:
    with read_or_explain(path / WEIGHTS), np.load(path / WEIGHTS, allow_pickle=False) as file:
        names = name_arrays(file.files)
        require_tensors(WEIGHTS, names, KEYS, UNIT_SCALES)
        with file.zip.open(f"{names['W_dec']}.npy") as array:
            version = np.lib.format.read_magic(array)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, _ = header(array)
    if len(shape) != 2:
        raise SAEFileError(f"W_dec must be a matrix of latents by width, but it has the shape {shape}")
    return shape
