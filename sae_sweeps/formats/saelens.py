"""Trained SAEs on disk, in the format of SAELens 6: cfg.json and sae_weights.safetensors.

BatchTopK has no architecture of its own there at inference: it is saved as a JumpReLU whose thresholds all hold the
batch's stand-in. `metadata.sae_sweeps` tells which it was, so that reading gives the same SAE back.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweeps.files import read_json, write_json, written_whole
from sae_sweeps.formats import CONFIG, WEIGHTS
from sae_sweeps.saes import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE

FORMAT_VERSION = "6.0.0"  # without one, SAELens takes a file for one of its older layouts and drops the metadata


def write_sae(folder: Path, sae: SAE, metadata: dict[str, Any]) -> None:
    """Save an SAE such that `sae_lens.SAE.load_from_disk(folder)` computes what `sae` does.

    cfg.json is written last, so a folder that has one is complete.
    """
    weights: dict[str, Tensor] = {"W_enc": sae.W_enc.T.contiguous(), "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    origin: dict[str, Any] = {"architecture": sae.architecture}
    config: dict[str, Any] = {
        "d_in": sae.d_in,
        "d_sae": sae.dict_size,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centers_input,
        "normalize_activations": "layer_norm" if sae.normalize_input else "none",
        "reshape_activations": "none",
    }
    if isinstance(sae, TopKSAE):
        weights["b_enc"] = torch.zeros(sae.dict_size)
        origin["k"] = sae.k
    if isinstance(sae, BatchTopKSAE):
        config["architecture"] = "jumprelu"
        weights["threshold"] = sae.threshold.expand(sae.dict_size)
    elif isinstance(sae, TopKSAE):
        config |= {"architecture": "topk", "k": sae.k, "rescale_acts_by_decoder_norm": False}
    elif isinstance(sae, JumpReLUSAE):
        config["architecture"] = "jumprelu"
        weights |= {"b_enc": sae.b_enc, "threshold": sae.threshold}
        origin["sparsity_coefficient"] = sae.sparsity_coefficient
    config["metadata"] = {"sae_lens_version": FORMAT_VERSION, **metadata, "sae_sweeps": origin}

    with written_whole(folder / WEIGHTS) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial)
    write_json(folder / CONFIG, config)


def read_sae(folder: Path) -> SAE:
    """The SAE that `write_sae` saved. Raises: ValueError if the folder holds none."""
    config = read_json(folder / CONFIG)
    origin = config.get("metadata", {}).get("sae_sweeps") if isinstance(config, dict) else None
    if origin is None:
        raise ValueError(f"{folder}: no SAE that this project saved (cfg.json is missing or another's)")
    weights = load_file(folder / WEIGHTS)
    shape = {
        "d_in": config["d_in"],
        "dict_size": config["d_sae"],
        "normalize_input": config["normalize_activations"] == "layer_norm",
    }
    sae: SAE
    if origin["architecture"] == "jumprelu":
        sae = JumpReLUSAE(**shape, sparsity_coefficient=origin["sparsity_coefficient"])
        extra = ["b_enc", "threshold"]
    else:
        sae = {"topk": TopKSAE, "batchtopk": BatchTopKSAE}[origin["architecture"]](**shape, k=origin["k"])
        extra = []
    parameters: dict[str, Tensor] = {name: weights[name] for name in ["W_dec", "b_dec", *extra]}
    parameters["W_enc"] = weights["W_enc"].T
    if isinstance(sae, BatchTopKSAE):
        parameters |= {"threshold": weights["threshold"][0], "threshold_weight": torch.ones(())}
    sae.load_state_dict(parameters)
    return sae
