"""sparsify's folders (eai-sparsify): cfg.json and sae.safetensors of a TopK SAE. The folder is named after a module."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sae_sweeps.activations.hooks import as_block_output, split_hook
from sae_sweeps.formats.description import NORMALIZATION_KEY, Description
from sae_sweeps.formats.interface import Writer
from sae_sweeps.runtime.files import read_json, save_tensors, write_atomically, write_json
from sae_sweeps.saes import InferenceSAE

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
FILES = (CONFIG, WEIGHTS)
MODULES = {  # hooks by the module in a transformer block whose output they see; "" is the block itself
    "": "hook_resid_post",
    ".mlp": "hook_mlp_out",
    ".attn": "hook_attn_out",
    ".self_attn": "hook_attn_out",
    ".attention": "hook_attn_out",
}


def is_at(path: Path) -> bool:
    """Return whether a folder contains cfg.json and sae.safetensors, the files of sparsify."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the sizes and k in cfg.json, the hook in the folder's name, and the model in config.json one folder above.

    Raises: ValueError if cfg.json does not describe a TopK SAE.
    """
    config = _config(path)
    run = read_json(path.absolute().parent / "config.json")
    module = re.fullmatch(r"(?:layers|h|blocks)[._](\d+)(\.\w+)?", path.absolute().name)
    place = MODULES.get(module[2] or "") if module else None
    return Description(
        architecture="topk",
        d_in=config["d_in"],
        dict_size=config.get("num_latents") or config["d_in"] * config["expansion_factor"],
        k=config["k"],
        model=run.get("model") if isinstance(run, dict) else None,
        hook=f"blocks.{module[1]}.{place}" if module and place else None,
    )


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path / CONFIG)
    if not isinstance(config, dict) or not isinstance(config.get("k"), int) or not isinstance(config.get("d_in"), int):
        raise ValueError(f"{CONFIG} must contain k and d_in, both whole numbers")
    if not config.get("num_latents") and not config.get("expansion_factor"):
        raise ValueError(f"{CONFIG} has neither num_latents nor expansion_factor")
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(f"the activation in {CONFIG} must be topk, but it is {activation!r}")
    for unsupported in ("skip_connection", "transcode", "signed"):
        if config.get(unsupported):
            raise ValueError(f"{CONFIG} sets {unsupported}, which is not supported")
    return config


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: ValueError if cfg.json does not describe a TopK SAE.
    """
    config, weights = _config(path), load_file(path / WEIGHTS)
    return InferenceSAE(
        "topk",
        W_enc=weights["encoder.weight"],
        W_dec=weights["W_dec"],
        b_enc=weights["encoder.bias"],
        b_dec=weights["b_dec"],
        k=config["k"],
        centers_input=True,
        normalization=config.get(NORMALIZATION_KEY, "none"),
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
    write_json(folder.parent / "config.json", {"model": description.model})


def folder_name(hook: str | None) -> str:
    """Return sparsify's name for the module whose output a hook sees, e.g. "layers.3.mlp".

    The input of layer L counts as the output of layer L - 1. Any other hook is returned unchanged, and "sae" for None.
    """
    module = {"hook_resid_post": "", "hook_mlp_out": ".mlp", "hook_attn_out": ".attn"}
    layer, name = split_hook(as_block_output(hook or "")) or (0, "")
    return f"layers.{layer}{module[name]}" if name in module else hook or "sae"


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> Path:
    """Write an SAE for sparsify to a subfolder of `folder` named after the module, and return the subfolder.

    `metadata` is left out: the format has no key for it. Raises: ValueError as `write` does.
    """
    subfolder = folder / folder_name(description.hook)
    write(subfolder, sae, description)
    return subfolder


WRITER = Writer(
    library="sparsify",
    pip="eai-sparsify",
    imports="from sparsify import SparseCoder",
    load='sae = SparseCoder.load_from_disk("{folder}")',
    normalizes=False,
    architectures=("topk",),
    write=export,
)
