"""dictionary_learning's folders: config.json and ae.pt, a pickled state dictionary."""

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.hooks import as_block_output, split_hook
from sae_sweeps.formats.description import NORMALIZATION_KEY, Description
from sae_sweeps.formats.fields import LARGEST, Fields
from sae_sweeps.formats.files import SAEFileError, read_config, require_shapes, require_tensors
from sae_sweeps.formats.interface import Writer
from sae_sweeps.formats.pickles import read_pickle, read_pickle_headers
from sae_sweeps.formats.places import find_hook, require_place
from sae_sweeps.runtime.files import write_atomically, write_json
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.saes.inference import convert_gate

CONFIG, WEIGHTS = "config.json", "ae.pt"
FILES = (CONFIG, WEIGHTS)

ARCHITECTURES = {  # the architecture here, by dict_class in config.json
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
}
DICT_CLASSES = {  # the dict_class that each architecture is written as
    "relu": "AutoEncoder",
    "gated": "GatedAutoEncoder",
    "topk": "AutoEncoderTopK",
    "batchtopk": "BatchTopKSAE",
    "matryoshka": "BatchTopKSAE",
    "jumprelu": "JumpReluAutoEncoder",
}
# outputs that submodule_name names, e.g. resid_post_layer_8; without that key, the SAE is of a layer's output
PLACE = re.compile(r"(resid_post|resid_mid|resid_pre|attn_out|mlp_out)(?:_layer_?(\d+))?", re.ASCII)
LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
MATRICES = ("W_enc", "b_enc", "W_dec", "b_dec")
TENSORS = {  # the tensors that an SAE of each class consists of
    "AutoEncoder": (*LINEAR, "bias"),
    "AutoEncoderNew": (*LINEAR, "decoder.bias"),
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
    "AutoEncoderTopK": (*LINEAR, "b_dec"),
    "BatchTopKSAE": (*LINEAR, "b_dec", "threshold"),
    "MatryoshkaBatchTopKSAE": (*MATRICES, "threshold"),
    "JumpReluAutoEncoder": (*MATRICES, "threshold"),
}
OPTIONAL = {  # tensors that inference does not use, or that the configuration has as well
    "AutoEncoderTopK": ("k", "threshold"),
    "BatchTopKSAE": ("k",),
    "MatryoshkaBatchTopKSAE": ("k", "group_sizes"),
}


def is_at(path: Path) -> bool:
    """Return whether a folder contains config.json and ae.pt, the files of dictionary_learning."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the architecture, sizes, k, model and hook that config.json declares.

    Raises: SAEFileError if config.json has no trainer, if a value is of another type, if the dict_class is not
    supported, or if a tensor in ae.pt is missing, left over or of another shape.
    """
    config, trainer = _config(path)
    dict_class = trainer.text("dict_class") or ""
    headers = read_pickle_headers(path / WEIGHTS)
    require_tensors(WEIGHTS, headers, TENSORS[dict_class], OPTIONAL.get(dict_class, ()))
    require_shapes(headers, trainer.whole("dict_size"), trainer.whole("activation_dim"))
    return Description(
        architecture=ARCHITECTURES[dict_class],
        d_in=trainer.whole("activation_dim"),
        dict_size=trainer.whole("dict_size"),
        k=trainer.whole("k"),
        model=trainer.text("lm_name"),
        hook=_find_declared_hook(trainer, config.section("buffer")),
    )


def _config(path: Path) -> tuple[Fields, Fields]:
    """Return config.json, and the settings of its trainer. Raises: SAEFileError if there are none."""
    config = Fields(CONFIG, read_config(path / CONFIG))
    if not isinstance(config.values.get("trainer"), dict):
        raise SAEFileError(f"{CONFIG} has no JSON object named trainer")
    trainer = config.section("trainer")
    if trainer.text("dict_class") not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise trainer.mistyped("dict_class", f"must be one of {supported}")
    for level in (trainer, config.section("buffer")):
        level.refuse_unknown((NORMALIZATION_KEY,), everything=False)
    return config, trainer


def _find_declared_hook(trainer: Fields, buffer: Fields) -> str | None:
    """Return the hook that the trainer's submodule and layer name; None if neither is declared.

    A place that is not understood is returned in its own words, which are no hook. Raises: SAEFileError for words that
    name no place.
    """
    submodule, layer = trainer.text("submodule_name"), trainer.values.get("layer")
    if submodule is None and layer is None:
        return None
    side = buffer.text("io") or "out"  # whether activations are the submodule's input or its output
    require_place(side)
    if not isinstance(layer, int | None):
        require_place(trainer.text("layer") or "")
    number = layer if isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer <= LARGEST else None
    named = PLACE.fullmatch("resid_post" if submodule is None else submodule)
    hook = None
    if submodule is not None and named is None:
        hook = find_hook(submodule)
        if number is not None and not (hook or "").startswith(f"blocks.{number}."):
            hook = None  # the two contradict each other, or the submodule is not understood
    elif named is not None and number is not None and named[2] in (None, str(number)):
        hook = f"blocks.{number}.hook_{named[1]}"
    if hook is not None and side == "in" and hook.endswith("hook_resid_post"):
        return hook.replace("hook_resid_post", "hook_resid_pre")
    if hook is not None and side == "out":
        return hook
    return f"the {side}put of {submodule or 'a block'} of layer {reprlib.repr(layer)}"


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: SAEFileError if the dict_class is not supported, if a tensor is missing or left over, or if ae.pt holds more
    than tensors.
    """
    describe(path)
    (_, trainer), state = _config(path), read_pickle(path / WEIGHTS)
    dict_class = trainer.text("dict_class") or ""
    k = _require_one_k(trainer, state)
    parts: dict[str, Any] = {"centers_input": dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder")}
    parts["normalization"] = trainer.text(NORMALIZATION_KEY) or "none"
    if "W_enc" in state:
        parts |= {"W_enc": state["W_enc"].mT, "W_dec": state["W_dec"], "b_enc": state["b_enc"], "b_dec": state["b_dec"]}
    else:
        (b_dec,) = {"b_dec", "bias", "decoder.bias", "decoder_bias"} & set(state)
        parts |= {
            "W_enc": state["encoder.weight"],
            "W_dec": state["decoder.weight"].mT,
            "b_enc": state.get("encoder.bias"),
            "b_dec": state[b_dec],
        }
    dict_size = len(parts["W_dec"])
    if dict_class == "AutoEncoderTopK":
        if k is None:
            raise SAEFileError(f"neither {CONFIG} nor {WEIGHTS} has k, which a TopK SAE needs")
        parts["k"] = k
    elif dict_class == "GatedAutoEncoder":
        parts |= convert_gate(state["r_mag"], state["gate_bias"], state["mag_bias"])
    elif ARCHITECTURES[dict_class] == "relu":
        parts["threshold"] = torch.zeros(dict_size)
    else:
        parts["threshold"] = state["threshold"].expand(dict_size)  # the file has one in all, or one for each latent
    return InferenceSAE(ARCHITECTURES[dict_class], **parts)


def _require_one_k(trainer: Fields, state: Mapping[str, Tensor]) -> int | None:
    """Return the k of the configuration or the weights; None if there is none. Raises: SAEFileError if they differ."""
    declared = trainer.whole("k")
    if "k" not in state:
        return declared
    found = Fields(WEIGHTS, {"k": state["k"].item() if state["k"].numel() == 1 else "several numbers"}).whole("k")
    if declared not in (None, found):
        raise SAEFileError(f"the configuration file declares k = {declared}, but the weights have {found}")
    return found


def write(folder: Path, sae: InferenceSAE, description: Description) -> None:
    """Write config.json and ae.pt to `folder`, for `dictionary_learning.utils.load_dictionary(folder, "cpu")`.

    The loaded SAE computes the same as `sae`. Layer, model and submodule are those of `description`.
    Raises: ValueError if the SAE normalises activations, or if dictionary_learning's class needs a k and none is known.
    """
    if sae.normalization != "none":
        raise ValueError(f"dictionary_learning cannot normalise activations, but the SAE needs {sae.normalization}")
    dict_class, k = DICT_CLASSES[sae.architecture], description.k if sae.k is None else sae.k
    layer, place = _output_place(description.hook)
    state: dict[str, Tensor] = {"encoder.weight": sae.W_enc, "decoder.weight": sae.W_dec.T}
    bias = sae.encoder_bias(centered=True)
    if sae.architecture == "jumprelu":
        assert sae.threshold is not None, "a JumpReLU SAE has thresholds"
        state = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": sae.encoder_bias(centered=False)}
        state |= {"b_dec": sae.b_dec, "threshold": sae.threshold}
    elif sae.architecture == "gated":
        assert sae.gain is not None, "a gated SAE has gains"
        assert sae.shift is not None, "a gated SAE has shifts"
        mag_bias = sae.shift + sae.gain * bias
        state |= {"decoder_bias": sae.b_dec, "gate_bias": bias, "r_mag": sae.gain.log(), "mag_bias": mag_bias}
    elif sae.architecture == "relu":
        state |= {"bias": sae.b_dec, "encoder.bias": bias}
    else:
        threshold = torch.tensor(-1.0) if sae.threshold is None else sae.threshold[0]
        if k is None:
            raise ValueError(f"dictionary_learning needs the k of a {dict_class}, but the SAE's files do not name k")
        state |= {"b_dec": sae.b_dec, "encoder.bias": bias}
        state |= {"k": torch.tensor(k, dtype=torch.int), "threshold": threshold}
    trainer = {
        "trainer_class": dict_class,
        "dict_class": dict_class,
        "activation_dim": sae.d_in,
        "dict_size": sae.dict_size,
        "k": k,
        "layer": layer,
        "lm_name": description.model,
        "submodule_name": None if place is None else f"{place}_layer_{layer}",
    }
    if description.input_normalization != "none":
        trainer[NORMALIZATION_KEY] = description.input_normalization
    with write_atomically(folder / WEIGHTS) as partial:
        torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, partial)
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"d_submodule": sae.d_in}})


def _output_place(hook: str | None) -> tuple[int | None, str | None]:
    """Return the layer and the output (resid_post, mlp_out, ...) that a hook sees, e.g. (8, "resid_post").

    The input of layer L counts as the output of layer L - 1. Returns (None, None) for None and for any other hook.
    """
    layer, name = split_hook(as_block_output(hook or "")) or (None, "")
    return (layer, name.removeprefix("hook_")) if name.startswith("hook_") else (None, None)


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> list[Path]:
    """Write an SAE to `folder` for dictionary_learning. Returns the files.

    `metadata` is left out: the format has no key for it. Raises: ValueError as `write` does.
    """
    write(folder, sae, description)
    return [folder / name for name in FILES]


WRITER = Writer(
    library="dictionary_learning",
    pip="dictionary-learning",
    imports="from dictionary_learning.utils import load_dictionary",
    load='sae, config = load_dictionary({folder}, device="cpu")',
    normalizes=False,
    architectures=tuple(DICT_CLASSES),
    write=export,
)
