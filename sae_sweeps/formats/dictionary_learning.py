"""dictionary_learning's folders: config.json and ae.pt, a state that torch pickled.

A pickle can run code. These are read by torch's restricted loader, which knows tensors and little else; a file in which
there is more is refused, and nothing of it is run.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.files import read_json, write_json, written_whole
from sae_sweeps.formats.description import Description, layer_of
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.saes.inference import gate

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
# the names of the residual stream, of which its scripts take the output of a layer
PLACES = {"resid_post": "hook_resid_post", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}


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
        hook=f"blocks.{layer}.{PLACES[place]}" if isinstance(layer, int) and place is not None else None,
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
    if "W_enc" in state:
        parts |= {"W_enc": state["W_enc"].T, "W_dec": state["W_dec"], "b_enc": state["b_enc"], "b_dec": state["b_dec"]}
    else:
        biases = ("b_dec", "bias", "decoder.bias", "decoder_bias")
        parts |= {
            "W_enc": state["encoder.weight"],
            "W_dec": state["decoder.weight"].T,
            "b_enc": state.get("encoder.bias"),
            "b_dec": next(state[name] for name in biases if name in state),
        }
    dict_size = len(parts["W_dec"])
    if dict_class == "AutoEncoderTopK":
        parts["k"] = int(state["k"]) if "k" in state else int(trainer["k"])
    elif dict_class == "GatedAutoEncoder":
        parts |= gate(state["r_mag"], state["gate_bias"], state["mag_bias"])
    elif "threshold" in state:
        parts["threshold"] = state["threshold"].expand(dict_size)  # one for all, or each its own
    else:
        parts["threshold"] = torch.zeros(dict_size)
    return InferenceSAE(ARCHITECTURES[dict_class], **parts)


def _state(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{WEIGHTS} is a pickle with more than tensors in it; nothing of it was run") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{WEIGHTS} does not hold named tensors")
    return state


def write(folder: Path, sae: InferenceSAE, said: Description) -> None:
    """Save an SAE such that `dictionary_learning.utils.load_dictionary(folder, "cpu")` computes what it does.

    Raises: ValueError if it has no such dictionary.
    """
    if sae.normalization != "none":
        raise ValueError("dictionary_learning does not normalise activations")
    dict_class = WRITTEN[sae.architecture]
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
        k = torch.tensor(said.k if sae.k is None else sae.k, dtype=torch.int)
        state |= {"b_dec": sae.b_dec, "encoder.bias": bias, "k": k, "threshold": threshold}
    trainer = {
        "trainer_class": dict_class,
        "dict_class": dict_class,
        "activation_dim": sae.d_in,
        "dict_size": sae.dict_size,
        "k": said.k if sae.k is None else sae.k,
        "layer": layer_of(said.hook),
        "lm_name": said.model,
        "submodule_name": said.hook,
    }
    with written_whole(folder / WEIGHTS) as partial:
        torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, partial)
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"d_submodule": sae.d_in}})
