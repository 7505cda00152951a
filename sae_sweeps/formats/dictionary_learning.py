"""dictionary_learning's folders: config.json and ae.pt, a pickled state dictionary.

A pickle can run code. ae.pt is read with torch's restricted loader (`weights_only`), which accepts little more than
tensors; a file with anything else is refused, and none of its code is run.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.hooks import as_block_output, split_hook
from sae_sweeps.formats.description import NORMALIZATION_KEY, Description
from sae_sweeps.formats.interface import Writer
from sae_sweeps.runtime.files import read_json, write_atomically, write_json
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
# outputs that submodule_name contains, e.g. resid_post_layer_8; without that key, the SAE is of a layer's output
PLACES = ("resid_post", "resid_mid", "resid_pre", "attn_out", "mlp_out")


def is_at(path: Path) -> bool:
    """Return whether a folder contains config.json and ae.pt, the files of dictionary_learning."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the architecture, sizes, k, model and hook that config.json declares.

    Raises: ValueError if config.json has no trainer, or if the dict_class is not supported.
    """
    trainer = _trainer(path)
    submodule, layer = trainer.get("submodule_name"), trainer.get("layer")
    place = "resid_post" if submodule is None else next((name for name in PLACES if name in submodule), None)
    return Description(
        architecture=ARCHITECTURES[trainer["dict_class"]],
        d_in=trainer.get("activation_dim"),
        dict_size=trainer.get("dict_size"),
        k=trainer.get("k"),
        model=trainer.get("lm_name"),
        hook=f"blocks.{layer}.hook_{place}" if isinstance(layer, int) and place is not None else None,
    )


def _trainer(path: Path) -> dict[str, Any]:
    config = read_json(path / CONFIG)
    trainer = config.get("trainer") if isinstance(config, dict) else None
    if not isinstance(trainer, dict):
        raise ValueError(f"{CONFIG} has no JSON object named trainer")
    if (dict_class := trainer.get("dict_class")) not in ARCHITECTURES:
        raise ValueError(f"dict_class in {CONFIG} must be one of {', '.join(ARCHITECTURES)}, but it is {dict_class!r}")
    return trainer


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: ValueError if the dict_class is not supported, or if ae.pt holds more than tensors.
    """
    trainer, state = _trainer(path), _state(path / WEIGHTS)
    dict_class = trainer["dict_class"]
    parts: dict[str, Any] = {"centers_input": dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder")}
    parts["normalization"] = trainer.get(NORMALIZATION_KEY, "none")
    if "W_enc" in state:
        parts |= {"W_enc": state["W_enc"].mT, "W_dec": state["W_dec"], "b_enc": state["b_enc"], "b_dec": state["b_dec"]}
    else:
        biases = ("b_dec", "bias", "decoder.bias", "decoder_bias")
        parts |= {
            "W_enc": state["encoder.weight"],
            "W_dec": state["decoder.weight"].mT,
            "b_enc": None if dict_class == "GatedAutoEncoder" else state["encoder.bias"],
            "b_dec": state[next((name for name in biases if name in state), "b_dec")],
        }
    dict_size = len(parts["W_dec"])
    if dict_class == "AutoEncoderTopK":
        parts["k"] = int(state["k"]) if "k" in state else int(trainer["k"])
    elif dict_class == "GatedAutoEncoder":
        parts |= convert_gate(state["r_mag"], state["gate_bias"], state["mag_bias"])
    elif ARCHITECTURES[dict_class] == "relu":
        parts["threshold"] = torch.zeros(dict_size)
    else:
        parts["threshold"] = state["threshold"].expand(dict_size)  # the file has one in all, or one for each latent
    return InferenceSAE(ARCHITECTURES[dict_class], **parts)


def _state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{WEIGHTS} is damaged or holds more than tensors; no code in it was run") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{WEIGHTS} does not hold a dictionary of named tensors")
    return state


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


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> Path:
    """Write an SAE to `folder` for dictionary_learning, and return `folder`.

    `metadata` is left out: the format has no key for it. Raises: ValueError as `write` does.
    """
    write(folder, sae, description)
    return folder


WRITER = Writer(
    library="dictionary_learning",
    pip="dictionary-learning",
    imports="from dictionary_learning.utils import load_dictionary",
    load='sae, config = load_dictionary("{folder}", device="cpu")',
    normalizes=False,
    architectures=tuple(DICT_CLASSES),
    write=export,
)
