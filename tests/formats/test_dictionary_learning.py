"""dictionary_learning's folders, compared with its classes' formulas written out; and pickles that would run code."""

import json
import os
import pickle

import pytest
import torch
from torch import nn

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
        ({"submodule_name": "attention_layer8"}, None),
        ({"layer": None}, None),
        ({"layer": "8"}, None),
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


@pytest.mark.parametrize("text", ["", "[]", '{"trainer": 3}', "{}"])
def test_json_of_something_else_is_refused(tmp_path, text):
    write(tmp_path, "AutoEncoder", {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"cannot be read as dictionary_learning \(config.json has no JSON object named trainer\)"
    ):
        load_sae(tmp_path)


@pytest.mark.parametrize("dict_class", CLASSES)
def test_weights_that_are_missing_misshapen_or_not_finite_are_refused(tmp_path, dict_class):
    state, _ = CLASSES[dict_class][1](weights(), activations())
    for name, tensor in state.items():
        if name in ("k", "group_sizes") or (name == "threshold" and dict_class == "AutoEncoderTopK"):
            continue  # not used, or in the configuration as well
        write(tmp_path, dict_class, {key: value for key, value in state.items() if key != name}, k=4)
        with pytest.raises(ValueError, match="the files have no entry "):
            load_sae(tmp_path)
        write(tmp_path, dict_class, {**state, name: torch.full_like(tensor, float("nan"))}, k=4)
        with pytest.raises(ValueError, match="must hold only finite numbers"):
            load_sae(tmp_path)
        twice = torch.cat([tensor.reshape(-1), tensor.reshape(-1)])
        write(tmp_path, dict_class, {**state, name: twice}, k=4)
        with pytest.raises(ValueError, match=r"cannot be read as dictionary_learning \(.+\)"):
            load_sae(tmp_path)


@pytest.mark.parametrize("state", [[1, 2], {"k": 3}, torch.zeros(3), {"encoder.weight": "a"}])
def test_anything_but_named_tensors_is_refused(tmp_path, state):
    write(tmp_path, "AutoEncoder", state)
    with pytest.raises(ValueError, match=r"ae\.pt does not hold a dictionary of named tensors"):
        load_sae(tmp_path)


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


class Dense(nn.Module):
    """A module, saved whole instead of its state."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D, F)


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("among_tensors", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, in_zip, among_tensors):
    state, _ = auto_encoder(weights(), activations())
    trap = Evil(tmp_path / "made")
    content = {**state, "trap": trap} if among_tensors else trap
    folder = write(tmp_path / "sae", "AutoEncoder", state)
    torch.save(content, folder / "ae.pt", _use_new_zipfile_serialization=in_zip)
    with pytest.raises(ValueError, match="holds more than tensors; no code in it was run"):
        load_sae(folder)
    assert not trap.made.exists()
    torch.load(folder / "ae.pt", weights_only=False)
    assert trap.made.exists(), "unpickling it does make the folder"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_plain_pickle_is_never_run(tmp_path, protocol):
    trap = Evil(tmp_path / "made")
    folder = write(tmp_path / "sae", "AutoEncoder", {})
    (folder / "ae.pt").write_bytes(pickle.dumps(trap, protocol=protocol))
    with pytest.raises(ValueError, match="cannot be read as dictionary_learning"):
        load_sae(folder)
    assert not trap.made.exists()


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_module_that_was_saved_whole_is_refused(tmp_path, in_zip):
    folder = write(tmp_path, "AutoEncoder", {})
    torch.save(Dense(), folder / "ae.pt", _use_new_zipfile_serialization=in_zip)
    with pytest.raises(ValueError, match="holds more than tensors; no code in it was run"):
        load_sae(folder)


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, in_zip, share):
    state, _ = auto_encoder(weights(), activations())
    file = write(tmp_path, "AutoEncoder", state) / "ae.pt"
    torch.save(state, file, _use_new_zipfile_serialization=in_zip)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cannot be read as dictionary_learning \(.+\)") as raised:
        load_sae(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_file_of_something_else_is_refused(tmp_path):
    write(tmp_path, "AutoEncoder", {})
    (tmp_path / "ae.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"ae\.pt is damaged or holds more than tensors"):
        load_sae(tmp_path)
