"""sparsify's folders (eai-sparsify): cfg.json and sae.safetensors of a TopK SAE, named by the module that it reads."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sae_sweeps.activations.hooks import as_block_output, split_hook
from sae_sweeps.formats.description import FED, Description
from sae_sweeps.runtime.files import read_json, write_atomically, write_json
from sae_sweeps.saes import InferenceSAE

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
FILES = (CONFIG, WEIGHTS)
MODULES = {
    "": "hook_resid_post",
    ".mlp": "hook_mlp_out",
    ".attn": "hook_attn_out",
    ".self_attn": "hook_attn_out",
    ".attention": "hook_attn_out",
}


def is_at(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """What cfg.json says, and the names of the folder and of its parent. Raises: ValueError if it is no TopK SAE."""
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
        raise ValueError(f"{CONFIG} does not say k and d_in")
    if not config.get("num_latents") and not config.get("expansion_factor"):
        raise ValueError(f"{CONFIG} says neither num_latents nor expansion_factor")
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(f"its activation is {activation!r}, and only topk is known here")
    for other in ("skip_connection", "transcode", "signed"):
        if config.get(other):
            raise ValueError(f"it has {other}, which no SAE here has")
    return config


def read(path: Path) -> InferenceSAE:
    """Raises: ValueError if the files do not hold a TopK SAE."""
    config, weights = _config(path), load_file(path / WEIGHTS)
    return InferenceSAE(
        "topk",
        W_enc=weights["encoder.weight"],
        W_dec=weights["W_dec"],
        b_enc=weights["encoder.bias"],
        b_dec=weights["b_dec"],
        k=config["k"],
        centers_input=True,
        normalization=config.get(FED, "none"),
    )


def write(folder: Path, sae: InferenceSAE, description: Description) -> None:
    """Save an SAE such that `sparsify.SparseCoder.load_from_disk(folder)` computes what it does.

    Raises: ValueError if it is none of TopK.
    """
    if sae.normalization != "none":
        raise ValueError("sparsify does not normalise activations")
    if sae.k is None or sae.gain is not None:
        raise ValueError(f"sparsify has TopK alone, and this is {sae.architecture}")
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
    if description.fed != "none":
        config[FED] = description.fed
    with write_atomically(folder / WEIGHTS) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial)
    write_json(folder / CONFIG, config)
    write_json(folder.parent / "config.json", {"model": description.model})


def folder_name(hook: str | None) -> str:
    """The module whose output a hook reads, as sparsify names folders: layer L - 1 for what enters layer L. The hook
    itself if it reads no module's output."""
    module = {"hook_resid_post": "", "hook_mlp_out": ".mlp", "hook_attn_out": ".attn"}
    layer, name = split_hook(as_block_output(hook or "")) or (0, "")
    return f"layers.{layer}{module[name]}" if name in module else hook or "sae"
