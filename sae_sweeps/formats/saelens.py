"""SAELens' folders: cfg.json and sae_weights.safetensors, of version 6 and older.

sae_sweeps also saves SAEs in this format. SAELens has no architecture for BatchTopK at inference: BatchTopK is saved
as a JumpReLU SAE with the same threshold for every latent. `metadata.sae_sweeps` in cfg.json records the architecture.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sae_sweeps.formats.description import Description
from sae_sweeps.formats.interface import Writer
from sae_sweeps.formats.layout import CONFIG, DIRECTIONS_OF, WEIGHTS
from sae_sweeps.runtime.files import read_json, save_tensors, write_atomically, write_json
from sae_sweeps.saes import TRAINABLE, InferenceSAE
from sae_sweeps.saes.inference import convert_gate

log = logging.getLogger(__name__)

FILES = (CONFIG, WEIGHTS)
FORMAT_VERSION = "6.0.0"  # without a version, SAELens assumes an older layout and drops the metadata

# the architecture in SAELens that computes the same at inference, for each of `config.saes.ARCHITECTURES`. An
# architecture that is missing here is saved under its own name, which SAELens refuses and `read` accepts
WRITTEN = {
    "batchtopk": "jumprelu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "matryoshka": "jumprelu",
    "relu": "standard",
    "gated": "gated",
}
# keys of cfg.json in older versions, and in version 6
RENAMED = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
# SAELens' architectures that have another name here
NAMES_HERE = {"standard": "relu", "matryoshka_batchtopk": "matryoshka"}
RESCALING = ("topk", "batchtopk", "matryoshka_batchtopk")  # architectures with rescale_acts_by_decoder_norm
# scales activations by a factor that SAELens multiplies into the weights when saving, and ignores when loading
TRAINING_ONLY = "expected_average_only_in"
# `InferenceSAE.normalization`, by normalize_activations in cfg.json
NORMALIZATIONS = {
    "none": "none",
    TRAINING_ONLY: "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}


def is_at(path: Path) -> bool:
    """Return whether a folder contains cfg.json and sae_weights.safetensors, the files of SAELens."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the architecture, sizes, k, model and hook that cfg.json declares.

    Raises: ValueError if cfg.json lacks the architecture or a size, or has a setting that is not supported.
    """
    config = _config(path)
    metadata = config["metadata"]
    origin = metadata.get("sae_sweeps") or {}
    k = origin.get("k", config.get("k"))
    return Description(
        architecture=origin.get("architecture") or NAMES_HERE.get(config["architecture"], config["architecture"]),
        d_in=int(config["d_in"]),
        dict_size=int(config["d_sae"]),
        k=None if k is None else int(k),
        model=metadata.get("model_name"),
        hook=metadata.get("hook_name"),
        trained_here=bool(origin),
        directions_of=metadata.get(DIRECTIONS_OF),
    )


def _config(path: Path) -> dict[str, Any]:
    """Return the settings in cfg.json under the keys of SAELens 6.

    The key `scale_is_lost` is added: whether training scaled activations by a factor that the files do not name.
    Raises: ValueError if cfg.json lacks the architecture or a size, or has a setting that is not supported.
    """
    config = read_json(path / CONFIG)
    if not isinstance(config, dict):
        raise ValueError(
            f"{CONFIG} must hold a JSON object with the settings of an SAE, but the content is not a JSON object"
        )
    config = {RENAMED.get(name, name): value for name, value in config.items()}
    if not isinstance(config.get("metadata"), dict):  # before version 6, all settings are on one level
        named = {name: config.get(name) for name in ("model_name", "hook_name")}
        config["metadata"] = {name: value for name, value in named.items() if value is not None}
        config.setdefault("architecture", "standard")
        config.setdefault("apply_b_dec_to_input", True)
        arguments = config.get("activation_fn_kwargs") or {}
        if config.get("activation_fn", "relu") == "topk":
            config |= {"architecture": "topk", "k": arguments.get("k")}
        elif config.get("activation_fn", "relu") != "relu":
            raise ValueError(
                f"{CONFIG} has the activation function {config['activation_fn']!r}, which is neither relu nor topk"
            )
        if isinstance(config.get("normalize_activations"), bool):
            config["normalize_activations"] = TRAINING_ONLY if config["normalize_activations"] else "none"
    missing = [name for name in ("architecture", "d_in", "d_sae") if config.get(name) is None]
    if missing:
        raise ValueError(f"{CONFIG} has no {', '.join(missing)}")
    normalization = config.get("normalize_activations") or "none"
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"{CONFIG} has normalize_activations={normalization!r}, which is not supported")
    if config.get("reshape_activations", "none") not in ("none", None):
        raise ValueError(f"{CONFIG} has reshape_activations={config['reshape_activations']!r}, which is not supported")
    lost = {"scale_is_lost": normalization == TRAINING_ONLY}
    return {**config, **lost, "normalize_activations": NORMALIZATIONS[normalization]}


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: ValueError if the architecture or a setting in cfg.json is not supported.
    """
    config, weights = _config(path), load_file(path / WEIGHTS)
    architecture = config["architecture"]
    _check_scales(path, config, weights)
    parts: dict[str, Any] = {"W_dec": weights["W_dec"], "b_dec": weights["b_dec"], "b_enc": weights.get("b_enc")}
    W_enc_FD = weights["W_enc"].mT
    threshold = None
    if architecture == "standard":
        threshold = torch.zeros(len(W_enc_FD))
    elif architecture == "jumprelu":
        threshold = weights["threshold"]
    elif architecture in ("batchtopk", "matryoshka_batchtopk"):
        threshold = weights["topk_threshold"].expand(len(W_enc_FD))  # only training checkpoints have this architecture
    elif architecture == "gated":
        parts |= convert_gate(weights["r_mag"], weights["b_gate"], weights["b_mag"])
        threshold = parts.pop("threshold")
    elif not WRITER.has_architecture(architecture):
        threshold = weights.get("threshold")
        parts |= {name: weights.get(name) for name in ("gain", "shift")}
    elif architecture != "topk":
        known = "standard, topk, jumprelu, gated, batchtopk, matryoshka_batchtopk"
        raise ValueError(f"the architecture in {CONFIG} must be one of {known}, but it is {architecture!r}")
    if config.get("rescale_acts_by_decoder_norm") and architecture in RESCALING:
        # SAELens multiplies pre-activations by the decoder's norms and divides activations by them
        norm_F1 = weights["W_dec"].norm(dim=1, keepdim=True).clamp(min=1e-8)
        W_enc_FD, parts["W_dec"] = W_enc_FD * norm_F1, weights["W_dec"] / norm_F1
        parts["b_enc"] = None if parts["b_enc"] is None else parts["b_enc"] * norm_F1.squeeze(1)
    selection = {"k": int(config["k"])} if threshold is None else {"threshold": threshold}
    declared = describe(path)
    # an architecture of this project may have its own selection rule; those of other libraries do not. A name that
    # SAELens does not have is this project's, whatever the metadata say
    is_ours = declared.architecture in TRAINABLE and (
        declared.trained_here or not WRITER.has_architecture(architecture)
    )
    inference_class = TRAINABLE[declared.architecture].inference_class if is_ours else InferenceSAE
    return inference_class(
        declared.architecture,
        W_enc=W_enc_FD,
        **parts,
        **selection,
        centers_input=bool(config.get("apply_b_dec_to_input", True)),
        normalization=config["normalize_activations"],
    )


def _check_scales(path: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Warn if the activations' scale is lost. Raises: ValueError if latents have factors, which are not supported."""
    if config["scale_is_lost"]:
        log.warning(
            "%s: cfg.json has normalize_activations=%s without the factor; the SAE is used without normalisation, "
            "which is right only if the factor is in the weights, where SAELens puts it when it saves an SAE",
            path,
            TRAINING_ONLY,
        )
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights and not torch.allclose(weights[name].float(), torch.ones(())):
            raise ValueError(
                f"the weights include {name}, a factor for each latent other than 1, which is not supported"
            )


def write(folder: Path, sae: InferenceSAE, metadata: dict[str, Any]) -> None:
    """Write cfg.json and sae_weights.safetensors to `folder`, for `sae_lens.SAE.load_from_disk(folder)`.

    The loaded SAE computes the same as `sae`, if SAELens has the architecture. `metadata` is stored in cfg.json, and
    the architecture is added to the entry "sae_sweeps" there. cfg.json is written last, so a folder with a cfg.json is
    complete.
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
    if not WRITER.has_architecture(sae.architecture):
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
        save_tensors(weights, partial)
    write_json(folder / CONFIG, config)


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> Path:
    """Write an SAE to `folder` for SAELens, with the model and hook of `description`, and return `folder`."""
    write(folder, sae, {**metadata, "model_name": description.model, "hook_name": description.hook})
    return folder


WRITER = Writer(
    library="SAELens",
    pip="sae-lens>=6",
    imports="from sae_lens import SAE",
    load='sae = SAE.load_from_disk("{folder}")',
    normalizes=True,
    architectures=tuple(WRITTEN),
    takes_foreign=True,
    write=export,
)
