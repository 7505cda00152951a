"""SAELens' folders: cfg.json and sae_weights.safetensors, of version 6 and older.

sae_sweeps also saves SAEs in this format. SAELens has no architecture for BatchTopK at inference: BatchTopK is saved
as a JumpReLU SAE with the same threshold for every latent. `metadata.sae_sweeps` in cfg.json records the architecture.
"""

import logging
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.files import (
    UNIT_SCALES,
    Header,
    SAEFileError,
    read_headers,
    read_tensors,
    require_shapes,
    require_tensors,
    require_unit_scales,
)
from sae_sweeps.formats.interface import Writer
from sae_sweeps.formats.layout import CONFIG, WEIGHTS
from sae_sweeps.formats.places import find_hook
from sae_sweeps.formats.saelens_config import CENTERING, ORIGIN, TRAINING_ONLY, SAELensConfig, read_saelens_config
from sae_sweeps.runtime.file_faults import DOWNLOAD_AGAIN
from sae_sweeps.runtime.files import cached_sha256, save_tensors, sha256, write_atomically, write_json
from sae_sweeps.saes import TRAINABLE, InferenceSAE
from sae_sweeps.saes.inference import convert_gate

log = logging.getLogger(__name__)

FILES = (CONFIG, WEIGHTS)
SCALE_IS_LOST = (
    "%s: cfg.json has normalize_activations=%s without the factor; the SAE is used without normalisation, which is "
    "right only if the factor is in the weights, where SAELens puts it when it saves an SAE"
)
CHECKSUM = "weights_sha256"  # in the entry of this project in the metadata
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
# SAELens' architectures that have another name here
NAMES_HERE = {"standard": "relu", "matryoshka_batchtopk": "matryoshka"}
TENSORS = {  # the tensors that an SAE of each of SAELens' architectures consists of, besides W_enc, W_dec and b_dec
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "batchtopk": ("b_enc", "topk_threshold"),  # only training checkpoints have this architecture, and the next
    "matryoshka_batchtopk": ("b_enc", "topk_threshold"),
}
OWN_TENSORS = ("b_enc", "threshold", "gain", "shift")  # that an architecture without a name in SAELens may have


def is_at(path: Path) -> bool:
    """Return whether a folder contains cfg.json and sae_weights.safetensors, the files of SAELens."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the architecture, sizes, k, model and hook that cfg.json declares.

    Raises: SAEFileError if cfg.json or the header of the weights describes no SAE that is supported.
    """
    config = read_saelens_config(path)
    _require_weights(config, read_headers(path / WEIGHTS))
    if config.origin.text(CHECKSUM) not in (None, cached_sha256(path / WEIGHTS)):
        problem = f"{WEIGHTS} is not the file that {CONFIG} was written with: its checksum differs"
        raise SAEFileError(problem, f"{DOWNLOAD_AGAIN}, with {CONFIG}")
    metadata, origin = config.metadata, config.origin
    return Description(
        architecture=_find_architecture(config),
        d_in=config.d_in,
        dict_size=config.d_sae,
        k=origin.whole("k") or config.k,
        model=metadata.text("model_name"),
        hook=find_hook(metadata.text("hook_name") or metadata.text("hf_hook_name")),
        trained_here=bool(origin.values),
        directions_of=config.directions_of,
        is_centered=config.normalization == "center",
        prepend_bos=metadata.flag("prepend_bos") if "prepend_bos" in metadata else None,
        context_size=metadata.whole("context_size"),
    )


def _find_architecture(config: SAELensConfig) -> str:
    """Return the name that the SAE's architecture has here.

    Raises: SAEFileError if the metadata name an architecture that this project does not have, or that it would have
    written as another one.
    """
    named = config.origin.text("architecture")
    if named is None:
        return NAMES_HERE.get(config.architecture, config.architecture)
    if named not in ARCHITECTURES:
        known, shown = ", ".join(ARCHITECTURES), reprlib.repr(named)
        raise SAEFileError(f"{ORIGIN}.architecture in {CONFIG} must be one of {known}, but it is {shown}")
    if WRITTEN.get(named, named) != config.architecture:
        problem = f"{CONFIG} has the architecture {config.architecture}, which no {named} SAE has that was saved here"
        raise SAEFileError(problem)
    return named


def _require_weights(config: SAELensConfig, headers: Mapping[str, Header]) -> None:
    """Require that the file has the weights of the architecture, of the declared size. Raises: SAEFileError."""
    architecture = config.architecture
    if architecture not in TENSORS and WRITER.has_architecture(architecture):
        raise SAEFileError(
            f"the architecture in {CONFIG} must be one of {', '.join(TENSORS)}, but it is {reprlib.repr(architecture)}"
        )
    is_own = architecture not in TENSORS
    more, optional = ((), OWN_TENSORS) if is_own else (TENSORS[architecture], UNIT_SCALES)
    require_tensors(WEIGHTS, headers, ("W_enc", "W_dec", "b_dec", *more), optional)
    require_shapes(headers, config.d_sae, config.d_in)
    if architecture == "topk" and config.k is None:
        raise SAEFileError(f"{CONFIG} has no k, which a TopK SAE needs")


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: SAEFileError if the architecture, a setting in cfg.json or a tensor is not supported.
    """
    config, declared = read_saelens_config(path), describe(path)
    weights, architecture = read_tensors(path / WEIGHTS), config.architecture
    require_unit_scales(weights)
    if config.scale_is_lost:
        log.warning(SCALE_IS_LOST, path, TRAINING_ONLY)
    parts: dict[str, Any] = {"W_dec": weights["W_dec"], "b_dec": weights["b_dec"], "b_enc": weights.get("b_enc")}
    W_enc_FD = weights["W_enc"].mT
    threshold = weights.get("threshold")
    if architecture == "standard":
        threshold = torch.zeros(len(W_enc_FD))
    elif architecture in ("batchtopk", "matryoshka_batchtopk"):
        threshold = weights["topk_threshold"].expand(len(W_enc_FD))
    elif architecture == "gated":
        parts |= convert_gate(weights["r_mag"], weights["b_gate"], weights["b_mag"])
        threshold = parts.pop("threshold")
    elif architecture not in TENSORS:
        parts |= {name: weights.get(name) for name in ("gain", "shift")}
    if config.rescales:
        # SAELens multiplies pre-activations by the decoder's norms and divides activations by them
        norm_F1 = weights["W_dec"].norm(dim=1, keepdim=True).clamp(min=1e-8)
        W_enc_FD, parts["W_dec"] = W_enc_FD * norm_F1, weights["W_dec"] / norm_F1
        parts["b_enc"] = parts["b_enc"] * norm_F1.squeeze(1)
    selection = {"k": config.k} if threshold is None else {"threshold": threshold}
    # an architecture of this project may have its own selection rule; those of other libraries do not. A name that
    # SAELens does not have is this project's, whatever the metadata say
    is_ours = declared.architecture in TRAINABLE and (declared.trained_here or architecture not in TENSORS)
    inference_class = TRAINABLE[declared.architecture].inference_class if is_ours else InferenceSAE
    return inference_class(
        declared.architecture,
        W_enc=W_enc_FD,
        **parts,
        **selection,
        centers_input=config.centers_input,
        normalization=config.normalization,
    )


def write(folder: Path, sae: InferenceSAE, metadata: dict[str, Any]) -> None:
    """Write cfg.json and sae_weights.safetensors to `folder`, for `sae_lens.SAE.load_from_disk(folder)`.

    The loaded SAE computes the same as `sae`, if SAELens has the architecture. `metadata` is stored in cfg.json, and
    the architecture and the checksum of the weights are added to the entry "sae_sweeps" there. cfg.json is written
    last, so a folder with a cfg.json is complete.
    """
    zero_F = torch.zeros(sae.dict_size)
    weights: dict[str, Tensor] = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config: dict[str, Any] = {
        "d_in": sae.d_in,
        "d_sae": sae.dict_size,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centers_input,
        "normalize_activations": "none" if sae.normalization == "center" else sae.normalization,
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
    with write_atomically(folder / WEIGHTS) as partial:
        save_tensors(weights, partial)
    checksum = {CHECKSUM: sha256(folder / WEIGHTS)}
    origin = {"architecture": sae.architecture, **(metadata.get(ORIGIN) or {}), **checksum}
    config["metadata"] = {"sae_lens_version": FORMAT_VERSION, **metadata, ORIGIN: origin}
    if sae.normalization == "center":  # SAELens leaves it to the model, which must be loaded with this argument
        arguments = metadata.get("model_from_pretrained_kwargs") or {}
        config["metadata"] |= {"model_from_pretrained_kwargs": {**arguments, CENTERING: True}}
    write_json(folder / CONFIG, config)


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> list[Path]:
    """Write an SAE to `folder` for SAELens, with the model and hook of `description`. Returns the files."""
    sequences = {"prepend_bos": description.prepend_bos, "context_size": description.context_size}
    known = {name: value for name, value in sequences.items() if value is not None}
    write(folder, sae, {**known, **metadata, "model_name": description.model, "hook_name": description.hook})
    return [folder / name for name in FILES]


WRITER = Writer(
    library="SAELens",
    pip="sae-lens>=6",
    imports="from sae_lens import SAE",
    load="sae = SAE.load_from_disk({folder})",
    normalizes=True,
    architectures=tuple(WRITTEN),
    takes_foreign=True,
    write=export,
)
