"""sparsify's folders, compared with its formula written out."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sae_sweeps.activations.hooks import is_same_activation
from sae_sweeps.formats.reading import load_sae, locate
from sae_sweeps.formats.sparsify import folder_name
from tests.formats.published import D, F, activations, assert_computes, topk, weights

CONFIG = {
    "activation": "topk",
    "expansion_factor": 3,
    "normalize_decoder": True,
    "num_latents": F,
    "k": 4,
    "multi_topk": False,
    "skip_connection": False,
    "transcode": False,
    "d_in": D,
}


def tensors():
    w = weights()
    return {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}


def write(folder, config=CONFIG, weights=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    given = tensors() if weights is None else weights
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, folder / "sae.safetensors")
    return folder


OLDER = {"expansion_factor": 3, "normalize_decoder": True, "num_latents": 0, "k": 4, "d_in": D, "signed": False}


@pytest.mark.parametrize("config", [CONFIG, OLDER])
def test_topk(tmp_path, config):
    w, x_BD = tensors(), activations()
    acts_BF = topk((x_BD - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 4)
    folder = write(tmp_path / "sae-pythia-160m-32k" / "layers.3", config)
    (folder.parent / "config.json").write_text('{"model": "EleutherAI/pythia-160m", "sae": {"k": 4}, "layers": [3]}')
    assert_computes(folder, acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])
    found = locate(f"sparsify:{folder}").describe()
    assert (found.architecture, found.d_in, found.dict_size, found.k) == ("topk", D, F, 4)
    assert (found.model, found.hook) == ("EleutherAI/pythia-160m", "blocks.3.hook_resid_post")


def test_half_precision(tmp_path):
    w = {name: tensor.bfloat16() for name, tensor in tensors().items()}
    wide, x_BD = {name: tensor.float() for name, tensor in w.items()}, activations()
    acts_BF = topk((x_BD - wide["b_dec"]) @ wide["encoder.weight"].T + wide["encoder.bias"], 4)
    assert_computes(write(tmp_path, CONFIG, w), acts_BF, acts_BF @ wide["W_dec"] + wide["b_dec"])


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("layers.0", "blocks.0.hook_resid_post"),
        ("h.11", "blocks.11.hook_resid_post"),
        ("layers_2", "blocks.2.hook_resid_post"),
        ("layers.2.mlp", "blocks.2.hook_mlp_out"),
        ("layers.2.self_attn", "blocks.2.hook_attn_out"),
        ("h.2.attn", "blocks.2.hook_attn_out"),
        ("layers.2.attention", "blocks.2.hook_attn_out"),
        ("model.layers.2", "blocks.2.hook_resid_post"),
        ("my_sae", None),
        # places that are declared, and not understood
        ("layers.2.input_layernorm", "layers.2.input_layernorm"),
        ("layers.2.self_attn.o_proj", "layers.2.self_attn.o_proj"),
        ("embed_tokens", "embed_tokens"),
    ],
)
def test_the_hook_is_read_from_the_folder_name(tmp_path, name, hook):
    found = locate(str(write(tmp_path / name))).describe()
    assert (found.model, found.hook) == (None, hook)


@pytest.mark.parametrize(
    "hook",
    ["blocks.3.hook_resid_pre", "blocks.3.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.1.hook_attn_out"],
)
def test_the_hook_is_read_back_from_the_name_of_a_written_folder(tmp_path, hook):
    again = locate(str(write(tmp_path / folder_name(hook)))).describe().hook
    assert again is not None
    assert is_same_activation(again, hook)


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_mid", None])
def test_a_hook_on_no_module_is_read_back_from_its_own_name(tmp_path, hook):
    assert locate(str(write(tmp_path / folder_name(hook)))).describe().hook == hook


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"skip_connection": True}, "cfg.json sets skip_connection=True (a linear path around the latents), which"),
        ({"transcode": True}, "cfg.json sets transcode"),
        ({"signed": True}, "cfg.json sets signed"),
        ({"activation": "groupmax"}, "the activation in cfg.json must be topk, but it is 'groupmax'"),
        ({"k": None}, "cfg.json must contain k and d_in, both whole numbers"),
        ({"d_in": None}, "cfg.json must contain k and d_in, both whole numbers"),
        ({"num_latents": 0, "expansion_factor": 0}, "has neither num_latents nor expansion_factor"),
        ({"k": 4.5}, "k in cfg.json must be a whole number of at least 1, but it is 4.5"),
        ({"k": True}, "k in cfg.json must be a whole number of at least 1, but it is True"),
        ({"d_in": "8"}, "d_in in cfg.json must be a whole number of at least 1, but it is '8'"),
        ({"num_latents": [24]}, "num_latents in cfg.json must be a whole number"),
        (
            {"num_latents": F + 1},
            f"W_dec has the shape ({F}, {D}), but the configuration file declares {F + 1} latents",
        ),
        ({"hadamard": 2}, "cfg.json sets hadamard=2, which is not known here and may change what the SAE computes"),
        ({"k": F + 1}, f"k must be between 1 and {F}, the number of latents, but it is {F + 1}"),
    ],
)
def test_unsupported_and_missing_settings_are_refused(tmp_path, config, problem):
    write(tmp_path, {**CONFIG, **config})
    with pytest.raises(ValueError, match="cannot be read as sparsify") as raised:
        load_sae(tmp_path)
    assert problem in str(raised.value)


@pytest.mark.parametrize("name", tensors())
def test_weights_that_are_missing_misshapen_or_not_finite_are_refused(tmp_path, name):
    w = tensors()
    write(tmp_path, CONFIG, {key: value for key, value in w.items() if key != name})
    with pytest.raises(ValueError, match=rf"sae\.safetensors has no {name}, which an SAE of this arch"):
        load_sae(tmp_path)
    write(tmp_path, CONFIG, {**w, "W_skip": torch.zeros(D, D)})
    with pytest.raises(ValueError, match=r"sae\.safetensors has W_skip, which no SAE of this architecture has"):
        load_sae(tmp_path)
    write(tmp_path, CONFIG, {**w, name: torch.cat([w[name], w[name]])})
    with pytest.raises(ValueError, match=r"has the shape \("):
        load_sae(tmp_path)
    write(tmp_path, CONFIG, {**w, name: torch.full_like(w[name], float("inf"))})
    with pytest.raises(ValueError, match="must hold only finite numbers"):
        load_sae(tmp_path)
