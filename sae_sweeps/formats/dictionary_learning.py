"""dictionary_learning's folders: config.json and ae.pt, a state that torch pickled.

A pickle can run code. These are read by torch's restricted loader, which knows tensors and little else; a file in which
there is more is refused, and nothing of it is run.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.hooks import as_block_output
from sae_sweeps.formats.description import FED, Description
from sae_sweeps.runtime.files import read_json, write_atomically, write_json
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.saes.inference import convert_gate

CONFIG, WEIGHTS = "config.json", "ae.pt"
FILES = (CONFIG, WEIGHTS)

ARCHITECTURES = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
}
WRITTEN = {"relu": "AutoEncoder", "matryoshka": "BatchTopKSAE"} | {
    here: there for there, here in ARCHITECTURES.items() if here not in ("relu", "matryoshka")
}
# what submodule_name begins with, as in resid_post_layer_8; its scripts take the output of a layer
PLACES = ("resid_post", "resid_mid", "resid_pre", "attn_out", "mlp_out")


def is_at(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """What config.json says. Raises: ValueError if it names no dictionary that is known."""
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
        raise ValueError(f"{CONFIG} has no trainer")
    if (known := trainer.get("dict_class")) not in ARCHITECTURES:
        raise ValueError(f"its dict_class is {known!r}; known are {', '.join(ARCHITECTURES)}")
    return trainer


def read(path: Path) -> InferenceSAE:
    """Raises: ValueError if the files do not hold such a dictionary, or a pickle that is more than tensors."""
    trainer, state = _trainer(path), _state(path / WEIGHTS)
    dict_class = trainer["dict_class"]
    parts: dict[str, Any] = {"centers_input": dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder")}
    parts["normalization"] = trainer.get(FED, "none")
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
        parts["threshold"] = state["threshold"].expand(dict_size)  # one for all, or each its own
    return InferenceSAE(ARCHITECTURES[dict_class], **parts)


def _state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{WEIGHTS} is damaged, or holds more than tensors; nothing of it was run") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{WEIGHTS} does not hold named tensors")
    return state


def write(folder: Path, sae: InferenceSAE, description: Description) -> None:
    """Save an SAE such that `dictionary_learning.utils.load_dictionary(folder, "cpu")` computes what it does.

    Raises: ValueError if it has no such dictionary.
    """
    if sae.normalization != "none":
        raise ValueError("dictionary_learning does not normalise activations")
    dict_class, k = WRITTEN[sae.architecture], description.k if sae.k is None else sae.k
    layer, place = _output_of(description.hook)
    state: dict[str, Tensor] = {"encoder.weight": sae.W_enc, "decoder.weight": sae.W_dec.T}
    bias = sae.encoder_bias(centered=True)
    if sae.architecture == "jumprelu":
        assert sae.threshold is not None, "what it selects by"
        state = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": sae.encoder_bias(centered=False)}
        state |= {"b_dec": sae.b_dec, "threshold": sae.threshold}
    elif sae.architecture == "gated":
        assert sae.gain is not None, "what a gate has"
        assert sae.shift is not None, "what a gate has"
        mag_bias = sae.shift + sae.gain * bias
        state |= {"decoder_bias": sae.b_dec, "gate_bias": bias, "r_mag": sae.gain.log(), "mag_bias": mag_bias}
    elif sae.architecture == "relu":
        state |= {"bias": sae.b_dec, "encoder.bias": bias}
    else:
        threshold = torch.tensor(-1.0) if sae.threshold is None else sae.threshold[0]
        if k is None:
            raise ValueError(f"dictionary_learning asks for the k of a {dict_class}, which its files do not say")
        of_k = {"k": torch.tensor(k, dtype=torch.int), "threshold": threshold}
        state |= {"b_dec": sae.b_dec, "encoder.bias": bias, **of_k}
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
    if description.fed != "none":
        trainer[FED] = description.fed
    with write_atomically(folder / WEIGHTS) as partial:
        torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, partial)
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"d_submodule": sae.d_in}})


def _output_of(hook: str | None) -> tuple[int | None, str | None]:
    """The layer whose output a hook reads, and which: what enters a layer leaves the one before it."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_(\w+)", as_block_output(hook or ""))
    return (int(found[1]), found[2]) if found else (None, None)
