"""dictionary_learning's folders, compared with its classes' formulas written out; and pickles that would run code."""

import json
import re

import pytest
import torch

from sae_sweeps.formats.reading import load_sae, locate
from tests.formats.published import D, F, above, activations, assert_computes, topk, weights


def write(folder, dict_class, state, **trainer):
    """Write a folder as its trainers do, with settings that are not read here."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "trainer_class": "SomeTrainer",
        "dict_class": dict_class,
        "activation_dim": D,
        "dict_size": F,
        "lr": 3e-4,
        "device": "cuda:0",
        "layer": 8,
        "lm_name": "EleutherAI/pythia-160m-deduped",
        "wandb_name": "some",
        "submodule_name": "resid_post_layer_8",
    }
    buffer = {"d_submodule": D, "io": "out", "ctx_len": 1024}
    (folder / "config.json").write_text(json.dumps({"trainer": {**usual, **trainer}, "buffer": buffer}))
    torch.save(state, folder / "ae.pt")
    return folder


def linear(w):
    """Return the weights under the names of two nn.Linear."""
    return {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T}


def auto_encoder(w, x_BD):
    state = {**linear(w), "encoder.bias": w["b_enc"], "bias": w["b_dec"]}
    return state, ((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()


def auto_encoder_new(w, x_BD):
    state = {**linear(w), "encoder.bias": w["b_enc"], "decoder.bias": w["b_dec"]}
    return state, (x_BD @ w["W_enc"] + w["b_enc"]).relu()  # the decoder's bias is not subtracted


def gated(w, x_BD):
    r_mag, mag_bias = 0.3 * torch.randn(F), 0.2 * torch.randn(F)
    state = {**linear(w), "decoder_bias": w["b_dec"], "gate_bias": w["b_enc"], "r_mag": r_mag, "mag_bias": mag_bias}
    pre_BF = (x_BD - w["b_dec"]) @ w["W_enc"]
    return state, (pre_BF + w["b_enc"] > 0) * (r_mag.exp() * pre_BF + mag_bias).relu()


def with_k(w, threshold):
    more = {"k": torch.tensor(4, dtype=torch.int), "threshold": torch.tensor(threshold)}
    return {**linear(w), "encoder.bias": w["b_enc"], "b_dec": w["b_dec"], **more}


def auto_encoder_topk(w, x_BD):
    return with_k(w, 0.9), topk((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 4)  # its threshold is not used


def batchtopk(w, x_BD):
    return with_k(w, 0.7), above((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0.7)


def batchtopk_without_a_threshold_yet(w, x_BD):
    return with_k(w, -1.0), ((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()


def matryoshka(w, x_BD):
    state = {**w, "k": torch.tensor(4), "threshold": torch.tensor(0.7), "group_sizes": torch.tensor([6, 18])}
    return state, above((x_BD - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0.7)


def jumprelu(w, x_BD):
    threshold = torch.rand(F)
    return {**w, "threshold": threshold}, above(x_BD @ w["W_enc"] + w["b_enc"], threshold)


CLASSES = {
    "AutoEncoder": ("relu", auto_encoder),
    "AutoEncoderNew": ("relu", auto_encoder_new),
    "GatedAutoEncoder": ("gated", gated),
    "AutoEncoderTopK": ("topk", auto_encoder_topk),
    "BatchTopKSAE": ("batchtopk", batchtopk),
    "MatryoshkaBatchTopKSAE": ("matryoshka", matryoshka),
    "JumpReluAutoEncoder": ("jumprelu", jumprelu),
}


@pytest.mark.parametrize("dict_class", CLASSES)
def test_every_class_reconstructs_as_its_formula(tmp_path, dict_class):
    (architecture, made), w = CLASSES[dict_class], weights()
    state, acts_BF = made(w, activations())
    k = {"k": 4} if "k" in state else {}
    folder = write(tmp_path / "trainer_0", dict_class, state, **k)
    assert_computes(folder, acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])
    found = locate(f"dictionary_learning:{folder}").describe()
    assert (found.architecture, found.d_in, found.dict_size, found.k) == (architecture, D, F, k.get("k"))
    assert (found.model, found.hook) == ("EleutherAI/pythia-160m-deduped", "blocks.8.hook_resid_post")


def test_a_negative_threshold_keeps_all_positive_latents(tmp_path):
    w = weights()
    state, acts_BF = batchtopk_without_a_threshold_yet(w, activations())
    folder = write(tmp_path, "BatchTopKSAE", state, k=4)
    assert_computes(folder, acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])


def test_the_k_of_an_older_topk_is_read_from_its_configuration(tmp_path):
    w = weights()
    state, acts_BF = auto_encoder_topk(w, activations())
    del state["k"], state["threshold"]
    assert_computes(write(tmp_path, "AutoEncoderTopK", state, k=4), acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(tmp_path, dtype):
    w = {name: tensor.to(dtype).float() for name, tensor in weights().items()}
    state, acts_BF = auto_encoder(w, activations())
    folder = write(tmp_path, "AutoEncoder", {name: tensor.to(dtype) for name, tensor in state.items()})
    assert_computes(folder, acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize(
    ("settings", "hook"),
    [
        ({"submodule_name": None}, "blocks.8.hook_resid_post"),
        ({"submodule_name": "attn_out_layer_8"}, "blocks.8.hook_attn_out"),
        ({"submodule_name": "mlp_out_layer_8"}, "blocks.8.hook_mlp_out"),
        ({"submodule_name": "resid_pre_layer_8"}, "blocks.8.hook_resid_pre"),
        ({"submodule_name": "transformer.h.8.mlp"}, "blocks.8.hook_mlp_out"),
        ({"submodule_name": None, "layer": None}, None),
        # places that are declared, and not understood
        ({"submodule_name": "attention_layer8"}, "the output of attention_layer8 of layer 8"),
        ({"submodule_name": "resid_post_layer_7"}, "the output of resid_post_layer_7 of layer 8"),
        ({"submodule_name": "transformer.h.7"}, "the output of transformer.h.7 of layer 8"),
        ({"layer": None}, "the output of resid_post_layer_8 of layer None"),
        ({"layer": "8"}, "the output of resid_post_layer_8 of layer '8'"),
        ({"layer": True}, "the output of resid_post_layer_8 of layer True"),
    ],
)
def test_the_hook_is_read_from_the_configuration(tmp_path, settings, hook):
    state, _ = auto_encoder(weights(), activations())
    assert locate(str(write(tmp_path, "AutoEncoder", state, **settings))).describe().hook == hook


@pytest.mark.parametrize("dict_class", ["IdentityDict", None, ["AutoEncoder"]])
def test_an_unknown_class_is_refused(tmp_path, dict_class):
    write(tmp_path, dict_class, {})
    with pytest.raises(ValueError, match="cannot be read as dictionary_learning"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "config.json is empty"),
        ("[]", "config.json must hold a JSON object"),
        ('{"trainer": 3}', "config.json has no JSON object named trainer"),
        ("{}", "config.json has no JSON object named trainer"),
    ],
)
def test_json_of_something_else_is_refused(tmp_path, text, problem):
    write(tmp_path, "AutoEncoder", {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"cannot be read as dictionary_learning ({problem}")):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("buffer", "hook"),
    [
        ({"io": "in"}, "blocks.8.hook_resid_pre"),
        ({"io": "in_and_out"}, "the in_and_output of resid_post_layer_8 of layer 8"),
        ({"io": None}, "blocks.8.hook_resid_post"),
    ],
)
def test_the_side_of_the_submodule_is_read_from_the_buffer(tmp_path, buffer, hook):
    state, _ = auto_encoder(weights(), activations())
    config = json.loads((write(tmp_path, "AutoEncoder", state) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "buffer": buffer}))
    assert locate(str(tmp_path)).describe().hook == hook


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"k": 4.5}, "k in config.json must be a whole number of at least 1, but it is 4.5"),
        ({"k": True}, "k in config.json must be a whole number of at least 1, but it is True"),
        ({"k": "4"}, "k in config.json must be a whole number of at least 1, but it is '4'"),
        ({"k": 5}, "declares k = 5, but the weights have 4"),
        ({"activation_dim": -8}, "activation_dim in config.json must be a whole number"),
        ({"lm_name": 3}, "lm_name in config.json must be text, but it is 3"),
        ({"normalize_activations": ["layer_norm"]}, "normalize_activations in config.json must be text"),
        ({"normalize_activations": "unit_norm"}, "normalization must be one of none, layer_norm"),
        ({"input_transform": "square"}, "config.json sets input_transform='square', which is not known here"),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path, settings, problem):
    state, _ = batchtopk(weights(), activations())
    write(tmp_path, "BatchTopKSAE", state, **{"k": 4, **settings})
    with pytest.raises(ValueError, match="cannot be read as dictionary_learning") as raised:
        load_sae(tmp_path)
    assert problem in str(raised.value)


@pytest.mark.parametrize("dict_class", CLASSES)
def test_a_tensor_that_the_class_does_not_have_is_refused(tmp_path, dict_class):
    state, _ = CLASSES[dict_class][1](weights(), activations())
    write(tmp_path, dict_class, {**state, "W_skip": torch.zeros(D, D)}, k=4)
    with pytest.raises(ValueError, match=r"ae\.pt has W_skip, which no SAE of this architecture has"):
        load_sae(tmp_path)


@pytest.mark.parametrize("dict_class", CLASSES)
def test_weights_that_are_missing_misshapen_or_not_finite_are_refused(tmp_path, dict_class):
    state, _ = CLASSES[dict_class][1](weights(), activations())
    for name, tensor in state.items():
        if name in ("k", "group_sizes") or (name == "threshold" and dict_class == "AutoEncoderTopK"):
            continue  # not used, or in the configuration as well
        write(tmp_path, dict_class, {key: value for key, value in state.items() if key != name}, k=4)
        with pytest.raises(ValueError, match=rf"ae\.pt has no {re.escape(name)}, which an SAE of this architecture"):
            load_sae(tmp_path)
        write(tmp_path, dict_class, {**state, name: torch.full_like(tensor, float("nan"))}, k=4)
        with pytest.raises(ValueError, match="must hold only finite numbers"):
            load_sae(tmp_path)
        twice = torch.cat([tensor.reshape(-1), tensor.reshape(-1)])
        write(tmp_path, dict_class, {**state, name: twice}, k=4)
        with pytest.raises(ValueError, match=r"cannot be read as dictionary_learning \(.+\)"):
            load_sae(tmp_path)
