"""SAELens' folders: cfg.json and sae_weights.safetensors, of version 6 and of those before it.

It is also the format in which SAEs are saved here. BatchTopK has no architecture of its own there at inference: it is
saved as a JumpReLU whose thresholds all hold the batch's stand-in. `metadata.sae_sweeps` tells which it was.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.layout import CONFIG, OF_DIRECTIONS, WEIGHTS
from sae_sweeps.runtime.files import read_json, write_atomically, write_json
from sae_sweeps.saes import TRAINABLE, InferenceSAE
from sae_sweeps.saes.inference import convert_gate

log = logging.getLogger(__name__)

FILES = (CONFIG, WEIGHTS)
FORMAT_VERSION = "6.0.0"  # without one, SAELens takes a file for one of its older layouts and drops the metadata

# the name under which SAELens has each architecture of `config.saes.ARCHITECTURES` at inference. One that is missing
# here is saved under its own name: SAELens refuses it, and `read` gives it its class back
WRITTEN = {
    "batchtopk": "jumprelu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "matryoshka": "jumprelu",
    "relu": "standard",
    "gated": "gated",
}
# what the names of older layouts became
RENAMED = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
# architectures that have another name here; a BatchTopK SAE that was saved here is told by our metadata
HERE = {"standard": "relu", "matryoshka_batchtopk": "matryoshka"}
RESCALING = ("topk", "batchtopk", "matryoshka_batchtopk")  # those that can have rescale_acts_by_decoder_norm
# a factor that is put into the weights when an SAE is saved; SAELens too leaves it aside if it is still named then
TRAINING_ONLY = "expected_average_only_in"
NORMALIZATIONS = {"none": "none", TRAINING_ONLY: "none"} | {
    same: same for same in ("layer_norm", "constant_norm_rescale")
}


def has_architecture(name: str) -> bool:
    """Return whether SAELens can compute what an SAE of this architecture does.

    It can for SAEs of other libraries: `InferenceSAE` selects by a k, thresholds or gates, and SAELens has all three.
    """
    return name in WRITTEN or name not in ARCHITECTURES


def is_at(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """What cfg.json says. Raises: ValueError if it does not say what an SAE is, or says what cannot be used."""
    config = _config(path)
    metadata = config["metadata"]
    origin = metadata.get("sae_sweeps") or {}
    k = origin.get("k", config.get("k"))
    return Description(
        architecture=origin.get("architecture") or HERE.get(config["architecture"], config["architecture"]),
        d_in=int(config["d_in"]),
        dict_size=int(config["d_sae"]),
        k=None if k is None else int(k),
        model=metadata.get("model_name"),
        hook=metadata.get("hook_name"),
        trained_here=bool(origin),
        of_directions=metadata.get(OF_DIRECTIONS),
    )


def _config(path: Path) -> dict[str, Any]:
    """cfg.json as version 6 has it. Raises: ValueError if it lacks something, or has what cannot be used here."""
    config = read_json(path / CONFIG)
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no JSON of an SAE")
    config = {RENAMED.get(name, name): value for name, value in config.items()}
    if not isinstance(config.get("metadata"), dict):  # older than 6: everything in one place
        named = {name: config.get(name) for name in ("model_name", "hook_name")}
        config["metadata"] = {name: value for name, value in named.items() if value is not None}
        config.setdefault("architecture", "standard")
        config.setdefault("apply_b_dec_to_input", True)
        arguments = config.get("activation_fn_kwargs") or {}
        if config.get("activation_fn", "relu") == "topk":
            config |= {"architecture": "topk", "k": arguments.get("k")}
        elif config.get("activation_fn", "relu") != "relu":
            raise ValueError(f"its activation function is {config['activation_fn']!r}, and relu and topk are known")
        if isinstance(config.get("normalize_activations"), bool):
            config["normalize_activations"] = TRAINING_ONLY if config["normalize_activations"] else "none"
    missing = [name for name in ("architecture", "d_in", "d_sae") if config.get(name) is None]
    if missing:
        raise ValueError(f"{CONFIG} does not say {', '.join(missing)}")
    normalization = config.get("normalize_activations") or "none"
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"{CONFIG} has normalize_activations={normalization!r}, which is not known here")
    if config.get("reshape_activations", "none") not in ("none", None):
        raise ValueError(f"it is of activations reshaped by {config['reshape_activations']!r}, which is not known here")
    lost = {"average_is_lost": normalization == TRAINING_ONLY}
    return {**config, **lost, "normalize_activations": NORMALIZATIONS[normalization]}


def read(path: Path) -> InferenceSAE:
    """Raises: ValueError if the files do not hold an SAE of a kind that is known."""
    config, weights = _config(path), load_file(path / WEIGHTS)
    architecture = config["architecture"]
    if config["average_is_lost"]:
        log.warning("%s: normalize_activations is %s; taken to be in the weights", path, TRAINING_ONLY)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights and not torch.allclose(weights[name].float(), torch.ones(())):
            raise ValueError(f"its latents have a {name}, which is not known here")
    parts: dict[str, Any] = {"W_dec": weights["W_dec"], "b_dec": weights["b_dec"], "b_enc": weights.get("b_enc")}
    W_enc_FD = weights["W_enc"].mT
    threshold = None
    if architecture == "standard":
        threshold = torch.zeros(len(W_enc_FD))
    elif architecture == "jumprelu":
        threshold = weights["threshold"]
    elif architecture in ("batchtopk", "matryoshka_batchtopk"):
        threshold = weights["topk_threshold"].expand(len(W_enc_FD))  # a checkpoint of a training that goes on
    elif architecture == "gated":
        parts |= convert_gate(weights["r_mag"], weights["b_gate"], weights["b_mag"])
        threshold = parts.pop("threshold")
    elif not has_architecture(architecture):
        threshold = weights.get("threshold")
        parts |= {name: weights.get(name) for name in ("gain", "shift")}
    elif architecture != "topk":
        known = "standard, topk, jumprelu, gated, batchtopk, matryoshka_batchtopk"
        raise ValueError(f"its architecture is {architecture!r}; known are {known}")
    if config.get("rescale_acts_by_decoder_norm") and architecture in RESCALING:
        # pre-activations are multiplied by the decoder's norms, activations divided by them
        norm_F1 = weights["W_dec"].norm(dim=1, keepdim=True).clamp(min=1e-8)
        W_enc_FD, parts["W_dec"] = W_enc_FD * norm_F1, weights["W_dec"] / norm_F1
        parts["b_enc"] = None if parts["b_enc"] is None else parts["b_enc"] * norm_F1.squeeze(1)
    selection = {"k": int(config["k"])} if threshold is None else {"threshold": threshold}
    declared = describe(path)
    # an architecture of this project may select in a way of its own; those of other libraries do not
    is_ours = declared.trained_here and declared.architecture in TRAINABLE
    inference_class = TRAINABLE[declared.architecture].inference_class if is_ours else InferenceSAE
    return inference_class(
        declared.architecture,
        W_enc=W_enc_FD,
        **parts,
        **selection,
        centers_input=bool(config.get("apply_b_dec_to_input", True)),
        normalization=config["normalize_activations"],
    )


def write(folder: Path, sae: InferenceSAE, metadata: dict[str, Any]) -> None:
    """Save an SAE such that `sae_lens.SAE.load_from_disk(folder)` computes what `sae` does.

    `metadata` is kept in cfg.json; what it has as "sae_sweeps" is the SAE's origin, to which the architecture is added.
    cfg.json is written last, so a folder that has one is complete.
    """
    zero_F = torch.zeros(sae.dict_size)
    weights: dict[str, Tensor] = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config: dict[str, Any] = {
        "d_in": sae.d_in,
        "d_sae": sae.dict_size,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centers_input,
        "normalize_activations": sae.normalization,
        "reshape_activations": "none",
    }
    b_enc_F = zero_F if sae.b_enc is None else sae.b_enc
    if not has_architecture(sae.architecture):
        config["architecture"] = sae.architecture
        if sae.k is not None:
            config["k"] = sae.k
        own = {"b_enc": sae.b_enc, "threshold": sae.threshold, "gain": sae.gain, "shift": sae.shift}
        weights |= {name: weight for name, weight in own.items() if weight is not None}
    elif sae.gain is not None and sae.shift is not None:
        config["architecture"] = "gated"
        weights |= {"b_gate": b_enc_F, "r_mag": sae.gain.log(), "b_mag": sae.shift + sae.gain * b_enc_F}
    elif sae.threshold is None:
        config |= {"architecture": "topk", "k": sae.k, "rescale_acts_by_decoder_norm": False}
        weights["b_enc"] = b_enc_F
    elif sae.architecture == "relu":
        config["architecture"] = "standard"
        weights["b_enc"] = b_enc_F
    else:
        config["architecture"] = "jumprelu"
        weights |= {"b_enc": b_enc_F, "threshold": sae.threshold}
    origin = {"architecture": sae.architecture, **metadata.get("sae_sweeps", {})}
    config["metadata"] = {"sae_lens_version": FORMAT_VERSION, **metadata, "sae_sweeps": origin}

    with write_atomically(folder / WEIGHTS) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial)
    write_json(folder / CONFIG, config)
