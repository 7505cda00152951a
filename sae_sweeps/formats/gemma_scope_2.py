"""Gemma Scope 2's files: config.json and params.safetensors of a JumpReLU SAE on Gemma 3.

config.json names the model and the place, and says whether it is an SAE: most folders hold transcoders. Where the file
is missing, the path says the same:

google/gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_small/params.safetensors
"""

import re
from pathlib import Path

from sae_sweeps.formats.description import Description
from sae_sweeps.formats.fields import Fields
from sae_sweeps.formats.files import SAEFileError, read_config, read_headers, read_tensors
from sae_sweeps.formats.gemma_scope import build_jumprelu, name_arrays, require_arrays
from sae_sweeps.formats.places import find_hook
from sae_sweeps.saes import InferenceSAE

CONFIG, WEIGHTS = "config.json", "params.safetensors"
FILES = (CONFIG, WEIGHTS)
KNOWN = ("architecture", "type", "model_name", "hf_hook_point_in", "hf_hook_point_out", "width", "l0")
OTHERS = r"transcoder|crosscoder|clt"
# places in the transformer block by the folder that names them, in the words of config.json
PLACES = {"resid_post": "output", "mlp_out": "post_feedforward_layernorm.output", "attn_out": "self_attn.o_proj.input"}


def is_at(path: Path) -> bool:
    """Return whether a folder contains params.safetensors, the file of a Gemma Scope 2 SAE."""
    return (path / WEIGHTS).is_file()


def describe(path: Path) -> Description:
    """Return the sizes of an SAE from the header of W_dec, and the model and hook in config.json or else the path.

    Raises: SAEFileError if the files are of a transcoder or a crosscoder, or if a tensor is missing or left over.
    """
    config = _config(path)
    dict_size, d_in = require_arrays(WEIGHTS, read_headers(path / WEIGHTS), config.whole("width"))
    # Hugging Face has the pretrained 270m model without -pt, and the files write -v3 for -3
    model = (config.text("model_name") or "").replace("-v3", "-3")
    return Description(
        architecture="jumprelu",
        d_in=d_in,
        dict_size=dict_size,
        model=model.replace("-270m-pt", "-270m") or None,
        hook=find_hook(config.text("hf_hook_point_in")),
    )


def _config(path: Path) -> Fields:
    """Return the settings in config.json or else in the path. Raises: SAEFileError if they are not of an SAE."""
    has_config = (path / CONFIG).is_file()
    config = Fields(CONFIG, read_config(path / CONFIG) if has_config else _read_path(path))
    kind, architecture = config.text("type") or "sae", config.text("architecture") or "jump_relu"
    source, target = config.text("hf_hook_point_in"), config.text("hf_hook_point_out")
    if kind != "sae" or target not in (None, source):
        described = f"it reconstructs {target}, from {source}" if kind == "sae" else f"its type is {kind!r}"
        raise SAEFileError(f"transcoders and crosscoders are not supported: by {CONFIG}, {described}")
    if architecture not in ("jump_relu", "jumprelu"):
        raise SAEFileError(f"the architecture in {CONFIG} must be jump_relu, but it is {architecture!r}")
    config.refuse({name: "a linear path around the latents" for name in ("affine_connection",) if config.is_set(name)})
    config.refuse_unknown((*KNOWN, "affine_connection"))
    return config


def _read_path(path: Path) -> dict[str, str]:
    """Return what the path says in the words of config.json; empty if it is not laid out like the published one."""
    where = str(path.absolute())
    model = re.search(r"gemma-scope-2-([0-9]+[mb])-(pt|it)", where)
    if model is None:
        return {}
    if other := re.search(OTHERS, where):
        return {"type": other[0]}
    place, layer = re.search("|".join(PLACES), where), re.search(r"layer_([0-9]+)", where)
    named = {"model_name": f"gemma-3-{model[1]}-{model[2]}"}
    return named | ({"hf_hook_point_in": f"model.layers.{layer[1]}.{PLACES[place[0]]}"} if place and layer else {})


def read(path: Path) -> InferenceSAE:
    """Return the SAE in the folder `path`, on the CPU.

    Raises: SAEFileError if the files are not of an SAE, or if a tensor is missing or left over.
    """
    describe(path)
    weights = read_tensors(path / WEIGHTS)
    return build_jumprelu({key: weights[name] for key, name in name_arrays(weights).items()})
