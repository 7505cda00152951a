"""SAELens' files as published by others, of version 6 and older, compared with its formulas written out."""

# B activations in a batch, D model width, F latents

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from sae_sweeps.formats.reading import Located, load_sae, locate
from tests.formats.published import D, F, above, activations, assert_computes, topk, weights


def published(folder, config, tensors):
    """Write an SAE as version 6 saves it; `config` adds to cfg.json, None removes a key."""
    metadata = {
        "sae_lens_version": "6.26.1",
        "sae_lens_training_version": "6.26.1",
        "dataset_path": "monology/pile-uncopyrighted",
        "model_name": "gpt2",
        "hook_name": "blocks.7.hook_resid_pre",
        "model_class_name": "HookedTransformer",
        "hook_head_index": None,
        "context_size": 128,
        "prepend_bos": True,
        "exclude_special_tokens": False,
        "sequence_separator_token": "bos",
    }
    usual = {
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "device": "cuda",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }
    return write(folder, {key: value for key, value in {**usual, **config}.items() if value is not None}, tensors)


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def threshold():
    return 0.4 * torch.rand(F, generator=torch.Generator().manual_seed(1)) - 0.1  # some below zero


def test_standard(tmp_path):
    w, x_BD = weights(), activations()
    acts_BF = ((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    recon_BD = acts_BF @ w["W_dec"] + w["b_dec"]
    assert_computes(published(tmp_path, {"architecture": "standard"}, w), acts_BF, recon_BD)
    found = locate(str(tmp_path)).describe()
    assert (found.architecture, found.d_in, found.dict_size, found.k) == ("relu", D, F, None)
    assert (found.model, found.hook, found.trained_here) == ("gpt2", "blocks.7.hook_resid_pre", False)


@pytest.mark.parametrize("centered", [True, False, None])
def test_jumprelu_with_and_without_b_dec_in_its_input(tmp_path, centered):
    w, x_BD = {**weights(), "threshold": threshold()}, activations()
    input_BD = x_BD if centered is False else x_BD - w["b_dec"]  # True is the default
    acts_BF = above(input_BD @ w["W_enc"] + w["b_enc"], w["threshold"])
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": centered}
    assert_computes(published(tmp_path, config, w), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])


def test_topk(tmp_path):
    w, x_BD = weights(), activations()
    acts_BF = topk((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 5)
    config = {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": False}
    assert_computes(published(tmp_path, config, w), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])
    assert locate(str(tmp_path)).describe().k == 5


def test_topk_rescaled_by_decoder_norms(tmp_path):
    w, x_BD = weights(), activations()
    norm_F = w["W_dec"].norm(dim=1)
    acts_BF = topk(((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norm_F, 5)
    recon_BD = (acts_BF / norm_F) @ w["W_dec"] + w["b_dec"]
    config = {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": True}
    assert_computes(published(tmp_path, config, w), acts_BF, recon_BD)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("rescaled", [True, False])
def test_a_training_checkpoint_of_batchtopk(tmp_path, architecture, rescaled):
    w, x_BD = weights(), activations()
    norm_F = w["W_dec"].norm(dim=1) if rescaled else torch.ones(F)
    acts_BF = above(((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norm_F, 0.6)
    recon_BD = (acts_BF / norm_F) @ w["W_dec"] + w["b_dec"]
    config = {"architecture": architecture, "k": 4.0, "rescale_acts_by_decoder_norm": rescaled}
    tensors = {**w, "topk_threshold": torch.tensor(0.6, dtype=torch.double)}
    assert_computes(published(tmp_path, config, tensors), acts_BF, recon_BD)
    found = locate(str(tmp_path)).describe()
    assert (found.architecture, found.k) == (architecture.removesuffix("_batchtopk"), 4)


def test_only_topk_is_rescaled_by_decoder_norms(tmp_path):
    w, x_BD = {**weights(), "threshold": threshold()}, activations()
    acts_BF = above((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"], w["threshold"])
    config = {"architecture": "jumprelu", "rescale_acts_by_decoder_norm": True}  # SAELens ignores it here
    assert_computes(published(tmp_path, config, w), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("centered", [True, False])
def test_gated(tmp_path, centered):
    w, x_BD = weights(), activations()
    b_gate, b_mag, r_mag = w.pop("b_enc"), 0.2 * torch.randn(F), 0.3 * torch.randn(F)
    input_BD = x_BD - centered * w["b_dec"]
    gate_BF = input_BD @ w["W_enc"] + b_gate > 0
    acts_BF = gate_BF * (input_BD @ (w["W_enc"] * r_mag.exp()) + b_mag).relu()
    tensors = {**w, "b_gate": b_gate, "b_mag": b_mag, "r_mag": r_mag}
    config = {"architecture": "gated", "apply_b_dec_to_input": centered}
    assert_computes(published(tmp_path, config, tensors), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])


def test_layer_norm(tmp_path):
    w, x_BD = weights(), activations()
    mean_B1 = x_BD.mean(1, keepdim=True)
    std_B1 = (x_BD - mean_B1).std(1, keepdim=True)
    acts_BF = (((x_BD - mean_B1) / (std_B1 + 1e-5) - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    recon_BD = (acts_BF @ w["W_dec"] + w["b_dec"]) * std_B1 + mean_B1
    config = {"architecture": "standard", "normalize_activations": "layer_norm"}
    assert_computes(published(tmp_path, config, w), acts_BF, recon_BD)


def test_constant_norm_rescale(tmp_path):
    w, x_BD = weights(), activations()
    factor_B1 = D**0.5 / x_BD.norm(dim=1, keepdim=True)
    acts_BF = ((x_BD * factor_B1 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    recon_BD = (acts_BF @ w["W_dec"] + w["b_dec"]) / factor_B1
    config = {"architecture": "standard", "normalize_activations": "constant_norm_rescale"}
    assert_computes(published(tmp_path, config, w), acts_BF, recon_BD)


def test_a_normalisation_that_only_training_used_is_logged_and_not_applied(tmp_path, caplog):
    w, x_BD = weights(), activations()
    acts_BF = ((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    config = {"architecture": "standard", "normalize_activations": "expected_average_only_in"}
    with caplog.at_level(logging.WARNING):
        assert_computes(published(tmp_path, config, w), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])
    assert "expected_average_only_in" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(tmp_path, dtype):
    w = {name: tensor.to(dtype) for name, tensor in weights().items()}
    x_BD, wide = activations(), {name: tensor.float() for name, tensor in w.items()}
    acts_BF = ((x_BD - wide["b_dec"]) @ wide["W_enc"] + wide["b_enc"]).relu()
    folder = published(tmp_path, {"architecture": "standard", "dtype": "torch." + str(dtype)}, w)
    assert_computes(folder, acts_BF, acts_BF @ wide["W_dec"] + wide["b_dec"])


OLDER = {  # cfg.json of the GPT-2 feature-splitting SAEs
    "model_name": "gpt2-small",
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "hook_point_head_index": None,
    "dataset_path": "Skylion007/openwebtext",
    "is_dataset_tokenized": False,
    "context_size": 128,
    "use_cached_activations": False,
    "d_in": D,
    "d_sae": F,
    "expansion_factor": 3,
    "b_dec_init_method": "geometric_median",
    "device": "mps",
    "dtype": "torch.float32",
    "from_pretrained_path": None,
}


@pytest.mark.parametrize("factor", [None, 1.0])
def test_the_older_layout(tmp_path, factor):
    w, x_BD = weights(), activations()
    mean_B1 = x_BD.mean(1, keepdim=True)  # these versions always centred the model
    acts_BF = ((x_BD - mean_B1 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    more = {} if factor is None else {"scaling_factor": torch.full((F,), factor)}
    write(tmp_path, OLDER, {**w, **more})
    save_file({"sparsity": torch.zeros(F)}, tmp_path / "sparsity.safetensors")
    assert_computes(tmp_path, acts_BF, acts_BF @ w["W_dec"] + w["b_dec"] + mean_B1)
    found = locate(str(tmp_path)).describe()
    assert (found.architecture, found.model, found.hook) == ("relu", "gpt2-small", "blocks.8.hook_resid_pre")
    assert (found.is_centered, found.prepend_bos, found.context_size) == (True, None, 128)


def test_the_older_layout_of_topk(tmp_path):
    w, x_BD = weights(), activations()
    mean_B1 = x_BD.mean(1, keepdim=True)
    acts_BF = topk((x_BD - mean_B1 - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 3)
    config = {**OLDER, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": False}
    assert_computes(write(tmp_path, config, w), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"] + mean_B1)
    assert locate(str(tmp_path)).describe().k == 3


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"architecture": "transcoder"}, "the architecture in cfg.json must be one of standard, topk"),
        ({"architecture": "standard", "normalize_activations": "covariance_whitening"}, "'covariance_whitening'"),
        ({"architecture": "standard", "reshape_activations": "hook_z"}, "reshape_activations='hook_z'"),
        ({"architecture": "standard", "d_in": None}, "cfg.json has no d_in"),
        ({"architecture": "topk"}, "cfg.json has no k, which a TopK SAE needs"),
        (
            {"architecture": "topk", "k": F + 1},
            f"k must be between 1 and {F}, the number of latents, but it is {F + 1}",
        ),
        (
            {"architecture": "jumprelu"},
            "sae_weights.safetensors has no threshold, which an SAE of this architecture needs",
        ),
        (
            {"architecture": "batchtopk", "k": 3},
            "sae_weights.safetensors has no topk_threshold, which an SAE of this architecture needs",
        ),
        ({"architecture": "gated"}, "sae_weights.safetensors has no b_gate, b_mag, r_mag, which an SAE"),
    ],
)
def test_unsupported_and_missing_settings_are_refused(tmp_path, config, problem):
    published(tmp_path, config, weights())
    with pytest.raises(ValueError, match=r"cannot be read as sae_lens") as raised:
        load_sae(tmp_path)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unsupported_settings_of_the_older_layout_are_refused(tmp_path):
    write(tmp_path, {**OLDER, "activation_fn_str": "tanh-relu"}, weights())
    with pytest.raises(ValueError, match="has the activation function 'tanh-relu', which is neither relu nor topk"):
        load_sae(tmp_path)
    write(tmp_path, OLDER, {**weights(), "scaling_factor": torch.full((F,), 1.5)})
    with pytest.raises(ValueError, match="the weights include scaling_factor, a factor for each latent"):
        load_sae(tmp_path)


SHAPES = {"W_enc": (F, D), "W_dec": (F + 1, D), "b_enc": (F - 1,), "b_dec": (F,), "threshold": (1,)}


@pytest.mark.parametrize("name", SHAPES)
def test_a_weight_of_another_shape_is_refused(tmp_path, name):
    tensors = {**weights(), "threshold": threshold(), name: torch.zeros(SHAPES[name])}
    published(tmp_path, {"architecture": "jumprelu"}, tensors)
    with pytest.raises(ValueError, match=rf"{name} has the shape \("):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name, bad):
    tensors = {**weights(), "threshold": threshold()}
    tensors[name].view(-1)[3:5] = bad
    published(tmp_path, {"architecture": "jumprelu"}, tensors)
    with pytest.raises(ValueError, match=rf"{name} must hold only finite numbers, but 2 of \d+ are not"):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
@pytest.mark.parametrize("look", [load_sae, lambda folder: locate(str(folder)).describe()])
def test_a_missing_weight_is_named(tmp_path, look, name):
    published(tmp_path, {"architecture": "standard"}, {key: value for key, value in weights().items() if key != name})
    with pytest.raises(ValueError, match=rf"sae_weights\.safetensors has no {name}, which an SAE of this architecture"):
        look(tmp_path)


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_truncated_weights_are_refused(tmp_path, left):
    file = published(tmp_path, {"architecture": "standard"}, weights()) / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    for look in (Located("sae_lens", tmp_path).describe, lambda: load_sae(tmp_path)):
        with pytest.raises(
            ValueError, match=r"cannot be read as sae_lens \(sae_weights\.safetensors is (empty|damaged)"
        ):
            look()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"metadata": {"sae_sweeps": "x"}, "d_in": 8, "d_sae": 2}'])
def test_json_of_something_else_is_refused(tmp_path, text):
    published(tmp_path, {"architecture": "standard"}, weights())
    (tmp_path / "cfg.json").write_text(text)
    with pytest.raises(ValueError, match=r"cannot be read as sae_lens \(.+\)"):
        load_sae(tmp_path)
