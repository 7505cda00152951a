"""Gemma Scope 2's files, compared with its formula written out; config.json or the path names model and hook."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sae_sweeps.formats.reading import load_sae, locate
from tests.formats.published import D, F, above, activations, assert_computes, weights

PLACE = "model.layers.12.output"
CONFIG = {
    "hf_hook_point_in": PLACE,
    "hf_hook_point_out": PLACE,
    "model_name": "google/gemma-3-270m",
    "width": F,
    "l0": 10,
    "architecture": "jump_relu",
    "type": "sae",
}


def params():
    w = {**weights(), "threshold": torch.rand(F, generator=torch.Generator().manual_seed(1))}
    return {name.replace("W_", "w_"): tensor for name, tensor in w.items()}


def write(folder, config=CONFIG, tensors=None):
    """Write a folder as published; without config.json if `config` is None."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    given = params() if tensors is None else tensors
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, folder / "params.safetensors")
    return folder


def test_jumprelu(tmp_path):
    w, x_BD = params(), activations()
    acts_BF = above(x_BD @ w["w_enc"] + w["b_enc"], w["threshold"])  # b_dec is not subtracted
    folder = write(tmp_path / "layer_12_width_16k_l0_small")
    assert_computes(folder, acts_BF, acts_BF @ w["w_dec"] + w["b_dec"])
    found = locate(str(folder))
    assert (found.format, [file.name for file in found.files]) == (
        "gemma_scope_2",
        ["config.json", "params.safetensors"],
    )
    declared = found.describe()
    assert (declared.architecture, declared.d_in, declared.dict_size, declared.k) == ("jumprelu", D, F, None)
    assert (declared.model, declared.hook) == ("google/gemma-3-270m", "blocks.12.hook_resid_post")


@pytest.mark.parametrize(
    ("place", "hook"),
    [
        ("model.layers.3.post_feedforward_layernorm.output", "blocks.3.hook_mlp_out"),
        ("model.layers.3.self_attn.o_proj.input", "blocks.3.attn.hook_z"),
        ("model.layers.3.mlp.gate_proj.output", "model.layers.3.mlp.gate_proj.output"),
    ],
)
def test_the_hook_is_read_from_config_json(tmp_path, place, hook):
    config = CONFIG | {"hf_hook_point_in": place, "hf_hook_point_out": place, "model_name": "google/gemma-v3-1b-pt"}
    found = locate(str(write(tmp_path, config))).describe()
    assert (found.hook, found.model) == (hook, "google/gemma-3-1b-pt")


@pytest.mark.parametrize(
    ("path", "model", "hook"),
    [
        ("gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_small", "gemma-3-270m", "blocks.12.hook_resid_post"),
        ("gemma-scope-2-1b-it/mlp_out/layer_3_width_16k_l0_big", "gemma-3-1b-it", "blocks.3.hook_mlp_out"),
        ("gemma-scope-2-4b-pt/attn_out/layer_3_width_16k_l0_big", "gemma-3-4b-pt", "blocks.3.attn.hook_z"),
        ("elsewhere", None, None),
    ],
)
def test_without_config_json_the_path_names_model_and_hook(tmp_path, path, model, hook):
    found = locate(str(write(tmp_path / path, None))).describe()
    assert (found.model, found.hook) == (model, hook)


@pytest.mark.parametrize("kind", ["transcoder_all", "clt", "crosscoder"])
def test_without_config_json_a_transcoder_is_known_by_its_path(tmp_path, kind):
    folder = write(tmp_path / "gemma-scope-2-270m-pt" / kind / "layer_12_width_16k_l0_small", None)
    with pytest.raises(ValueError, match="transcoders and crosscoders are not supported"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"type": "transcoder"}, "transcoders and crosscoders are not supported: by config.json, its type is 'trans"),
        ({"hf_hook_point_out": "model.layers.12.mlp"}, "it reconstructs model.layers.12.mlp, from model.layers.12.out"),
        ({"architecture": "topk"}, "the architecture in config.json must be jump_relu, but it is 'topk'"),
        ({"affine_connection": True}, "sets affine_connection=True (a linear path around the latents)"),
        ({"width": F + 1}, f"W_dec has the shape ({F}, {D}), but the configuration file declares {F + 1} latents"),
        ({"width": 2.5}, "width in config.json must be a whole number"),
        ({"input_scale": 3}, "sets input_scale=3, which is not known here"),
        ({"model_name": 3}, "model_name in config.json must be text"),
    ],
)
def test_other_kinds_are_refused(tmp_path, config, problem):
    write(tmp_path, CONFIG | config)
    with pytest.raises(ValueError, match="cannot be read as gemma_scope_2") as raised:
        locate(str(tmp_path)).describe()
    assert problem in str(raised.value)


@pytest.mark.parametrize("name", params())
def test_weights_that_are_missing_misshapen_or_left_over_are_refused(tmp_path, name):
    w = params()
    write(tmp_path, CONFIG, {key: value for key, value in w.items() if key != name})
    missing = name.replace("w_", "W_")
    with pytest.raises(ValueError, match=rf"params\.safetensors has no {missing}, which an SAE of this architecture"):
        locate(str(tmp_path)).describe()
    write(tmp_path, CONFIG, {**w, "affine_skip_connection": torch.zeros(D, D)})
    with pytest.raises(ValueError, match=r"params\.safetensors has affine_skip_connection, which no SAE of this arch"):
        locate(str(tmp_path)).describe()
    write(tmp_path, CONFIG, {**w, name: torch.cat([w[name], w[name]])})
    with pytest.raises(ValueError, match=r"has the shape \("):
        load_sae(tmp_path)


def test_the_prefix_of_the_first_gemma_scope_is_corrected(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="holds no SAE") as raised:
        locate(f"gemma_scope:{tmp_path}")
    assert raised.value.fix == "write gemma_scope_2: instead of gemma_scope:"
