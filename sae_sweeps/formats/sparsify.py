"""sparsify's folders (eai-sparsify): cfg.json and sae.safetensors of a TopK SAE. The folder is named after a module."""

from pathlib import Path
from typing import Any

import torch

from sae_sweeps.activations.hooks import as_block_output, split_hook
from sae_sweeps.formats.description import NORMALIZATION_KEY, Description
from sae_sweeps.formats.fields import Fields, is_line
from sae_sweeps.formats.files import (
    SAEFileError,
    read_config,
    read_headers,
    read_tensors,
    require_shapes,
    require_tensors,
)
from sae_sweeps.formats.interface import Writer
from sae_sweeps.formats.places import find_hook, names_a_place
from sae_sweeps.runtime.files import save_tensors, write_atomically, write_json
from sae_sweeps.runtime.paths import join
from sae_sweeps.saes import InferenceSAE

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
FILES = (CONFIG, WEIGHTS)
RUN_CONFIG = "config.json"  # in the folder above; it names the model
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
UNSUPPORTED = {
    "skip_connection": "a linear path around the latents",
    "transcode": "a transcoder, which reconstructs other activations than it encodes",
    "signed": "latents of both signs",
}
KNOWN = {  # settings of which the SAE as saved depends on none, or that are read below
    *("activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "d_in"),
    *("skip_connection", "transcode", "signed", NORMALIZATION_KEY),
}


def is_at(path: Path) -> bool:
    """Return whether a folder contains cfg.json and sae.safetensors, the files of sparsify."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the sizes and k in cfg.json, the hook in the folder's name, and the model in config.json one folder above.

    Raises: SAEFileError if cfg.json does not describe a TopK SAE, or the header of the weights another one.
    """
    config, name = _config(path), path.absolute().name
    headers = read_headers(path / WEIGHTS)
    require_tensors(WEIGHTS, headers, TENSORS)
    dict_size, d_in = require_shapes(headers, *_sizes(config))
    return Description(
        architecture="topk",
        d_in=d_in,
        dict_size=dict_size,
        k=config.whole("k"),
        model=_find_model(path),
        hook=find_hook(name) if names_a_place(name) else None,
    )


def _find_model(path: Path) -> str | None:
    """Return the model in config.json one folder above; None if that file is of anything else."""
    try:
        model = read_config(path.absolute().parent / RUN_CONFIG).get("model")
    except SAEFileError:
        return None
    return model if is_line(model) else None


def _config(path: Path) -> Fields:
    """Return the settings in cfg.json. Raises: SAEFileError if they do not describe a TopK SAE."""
    config = Fields(CONFIG, read_config(path / CONFIG))
    if config.whole("k") is None or config.whole("d_in") is None:
        raise SAEFileError(f"{CONFIG} must contain k and d_in, both whole numbers")
    activation = config.text("activation") or "topk"
    if activation != "topk":
        raise SAEFileError(f"the activation in {CONFIG} must be topk, but it is {activation!r}")
    config.refuse({name: reason for name, reason in UNSUPPORTED.items() if config.is_set(name)})
    config.refuse_unknown(KNOWN)
    return config


def _sizes(config: Fields) -> tuple[int, int]:
    """Return the number of latents and the width. Raises: SAEFileError if cfg.json does not declare the number."""
    d_in = config.whole("d_in") or 0
    if config.is_set("num_latents"):  # 0 stands for the expansion factor
        return config.whole("num_latents") or 0, d_in
    if not config.is_set("expansion_factor"):
        raise SAEFileError(f"{CONFIG} has neither num_latents nor expansion_factor")
    return (config.whole("expansion_factor") or 0) * d_in, d_in


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: SAEFileError if cfg.json does not describe a TopK SAE, or if a tensor is missing or left over.
    """
    describe(path)
    config, weights = _config(path), read_tensors(path / WEIGHTS)
    return InferenceSAE(
        "topk",
        W_enc=weights["encoder.weight"],
        W_dec=weights["W_dec"],
        b_enc=weights["encoder.bias"],
        b_dec=weights["b_dec"],
        k=config.whole("k"),
        centers_input=True,
        normalization=config.text(NORMALIZATION_KEY) or "none",
    )


def write(folder: Path, sae: InferenceSAE, description: Description) -> None:
    """Write cfg.json and sae.safetensors to `folder`, for `sparsify.SparseCoder.load_from_disk(folder)`.

    The loaded SAE computes the same as `sae`. config.json in the folder above names the model.
    Raises: ValueError if the SAE is not a TopK SAE, or if it normalises activations.
    """
    if sae.normalization != "none":
        raise ValueError(f"sparsify cannot normalise activations, but the SAE needs {sae.normalization}")
    if sae.k is None or sae.gain is not None:
        raise ValueError(f"sparsify has only TopK SAEs, but the architecture of the SAE is {sae.architecture}")
    weights = {
        "encoder.weight": sae.W_enc,
        "encoder.bias": sae.encoder_bias(centered=True),
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    norm_F = sae.W_dec.norm(dim=1)
    config = {
        "activation": "topk",
        "expansion_factor": max(1, sae.dict_size // sae.d_in),
        "normalize_decoder": torch.allclose(norm_F, torch.ones_like(norm_F), atol=1e-5),
        "num_latents": sae.dict_size,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
    }
    if description.input_normalization != "none":
        config[NORMALIZATION_KEY] = description.input_normalization
    with write_atomically(folder / WEIGHTS) as partial:
        save_tensors(weights, partial)
    write_json(folder / CONFIG, config)
    write_json(folder.parent / RUN_CONFIG, {"model": description.model})


def folder_name(hook: str | None) -> str:
    """Return sparsify's name for the module whose output a hook sees, e.g. "layers.3.mlp".

    The input of layer L counts as the output of layer L - 1. Any other hook is returned unchanged, and "sae" for None.
    """
    module = {"hook_resid_post": "", "hook_mlp_out": ".mlp", "hook_attn_out": ".attn"}
    layer, name = split_hook(as_block_output(hook or "")) or (0, "")
    return f"layers.{layer}{module[name]}" if name in module else hook or "sae"


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> list[Path]:
    """Write an SAE for sparsify to a subfolder of `folder` named after the module. Returns the files.

    `metadata` is left out: the format has no key for it. Raises: ValueError as `write` does, and for a hook that cannot
    be the name of a folder.
    """
    subfolder = join(folder, folder_name(description.hook))
    write(subfolder, sae, description)
    return [*(subfolder / name for name in FILES), folder / RUN_CONFIG]


WRITER = Writer(
    library="sparsify",
    pip="eai-sparsify",
    imports="from sparsify import SparseCoder",
    load="sae = SparseCoder.load_from_disk({folder})",
    normalizes=False,
    architectures=("topk",),
    write=export,
)
