"""Settings in SAELens' cfg.json that change what an SAE is of: honoured, or refused by name."""

import json

import pytest
import torch

from sae_sweeps.formats import saelens
from sae_sweeps.formats.reading import load_sae, locate
from tests.formats.published import F, activations, weights
from tests.formats.test_saelens_published import OLDER, published, write

CENTERED = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
NEWER = {**{name: value for name, value in OLDER.items() if "hook_point" not in name}, "hook_name": "blocks.8.hook_x"}


@pytest.mark.parametrize(
    ("config", "is_centered"),
    [
        (OLDER | CENTERED, True),
        (OLDER | {"model_from_pretrained_kwargs": {}}, False),  # from a version that had the arguments
        (OLDER | {"model_from_pretrained_kwargs": {"center_writing_weights": False}}, False),
        (OLDER | {"model_name": "gemma-2b"}, False),  # in models with RMSNorm, TransformerLens centres nothing
        (OLDER | {"model_name": "mistral-7b"} | CENTERED, False),
        (NEWER, False),
        (NEWER | CENTERED, True),
        (NEWER | {"model_from_pretrained_kwargs": {"fold_ln": True, "center_unembed": True, "device": "mps"}}, False),
    ],
)
def test_the_older_layout_is_centred_unless_its_file_says_otherwise(tmp_path, config, is_centered):
    found = locate(str(write(tmp_path, config, weights())))
    assert found.describe().is_centered == is_centered
    assert found.read().normalization == ("center" if is_centered else "none")


@pytest.mark.parametrize("normalization", ["none", "layer_norm"])
def test_a_centred_residual_stream(tmp_path, normalization):
    """Centring before and after the SAE computes what the SAE computes on centred activations."""
    w, x_BD = weights(), activations()
    plain = {"architecture": "standard", "normalize_activations": normalization}
    metadata = {"model_name": "gpt2", "hook_name": "blocks.7.hook_resid_pre", **CENTERED}
    expected = load_sae(published(tmp_path / "plain", plain, w))
    found = load_sae(published(tmp_path / "centred", {**plain, "metadata": metadata}, w))
    mean_B1 = x_BD.mean(1, keepdim=True)
    torch.testing.assert_close(found.encode(x_BD), expected.encode(x_BD - mean_B1))
    torch.testing.assert_close(found(x_BD), expected(x_BD - mean_B1) + mean_B1)


@pytest.mark.parametrize("name", ["model_name", "hook_name", "prepend_bos", "model_from_pretrained_kwargs"])
def test_what_an_sae_is_of_may_stand_beside_the_metadata(tmp_path, name):
    about = {"model_name": "gpt2", "hook_name": "blocks.7.hook_resid_pre", "prepend_bos": False, **CENTERED}
    inside = {key: value for key, value in about.items() if key != name}
    config = {"architecture": "standard", "metadata": {**inside, name: None}, name: about[name]}
    found = locate(str(published(tmp_path, config, weights()))).describe()
    assert (found.model, found.hook, found.prepend_bos) == ("gpt2", "blocks.7.hook_resid_pre", False)
    assert found.is_centered


def test_a_centred_sae_is_written_so_that_it_is_read_back_centred(tmp_path):
    arguments = {"model_from_pretrained_kwargs": {**CENTERED["model_from_pretrained_kwargs"], "fold_ln": True}}
    given = {"architecture": "standard", "metadata": {"model_name": "gpt2", **arguments}}
    sae = load_sae(published(tmp_path / "a", given, weights()))
    saelens.write(tmp_path / "b", sae, given["metadata"])
    written = json.loads((tmp_path / "b" / "cfg.json").read_text())
    assert written["metadata"]["model_from_pretrained_kwargs"] == arguments["model_from_pretrained_kwargs"]
    assert written["normalize_activations"] == "none"
    assert torch.equal(load_sae(tmp_path / "b")(activations()), sae(activations()))


@pytest.mark.parametrize(
    ("hook", "found"),
    [
        ("model.layers.2", "blocks.2.hook_resid_post"),
        ("transformer.h.11", "blocks.11.hook_resid_post"),
        ("gpt_neox.layers.3.mlp", "blocks.3.hook_mlp_out"),
        ("model.language_model.layers.30", "blocks.30.hook_resid_post"),
        ("model.layers.2.self_attn", "blocks.2.hook_attn_out"),
        ("transformer.blocks.4", "blocks.4.hook_resid_post"),
        ("blocks.3.hook_resid_mid", "blocks.3.hook_resid_mid"),
        ("model.layers.2.mlp.act_fn", "model.layers.2.mlp.act_fn"),
        ("blocks.2.attn.hook_z", "blocks.2.attn.hook_z"),
        ("hook_embed", "hook_embed"),
        (None, None),
    ],
)
def test_the_hook_may_be_named_in_the_words_of_hugging_face(tmp_path, hook, found):
    metadata = {"sae_lens_version": "6.5.0", "hook_name": hook}
    config = {"architecture": "standard", "metadata": metadata}
    assert locate(str(published(tmp_path, config, weights()))).describe().hook == found


@pytest.mark.parametrize("in_metadata", [True, False])
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"hook_head_index": 3}, "sets hook_head_index=3 (one attention head), which is not supported"),
        ({"hook_head_index": 0}, "sets hook_head_index=0 (one attention head), which is not supported"),
        ({"hook_name_out": "blocks.7.hook_mlp_out"}, "(a transcoder, which reconstructs other activations than it"),
        ({"d_out": 8}, "sets d_out=8 (a transcoder"),
        ({"seqpos_slice": [5, -5]}, "sets seqpos_slice=[5, -5] (only some positions"),
        ({"input_transform": "square"}, "sets input_transform='square' (activations that were transformed first)"),
        ({"pre_whitening": {"eps": 1}}, "sets pre_whitening={'eps': 1}, which is not known here"),
    ],
)
def test_an_sae_of_other_activations_is_refused(tmp_path, settings, problem, in_metadata):
    config = {"architecture": "standard", "metadata": {"model_name": "gpt2"}}
    published(
        tmp_path,
        {**config, "metadata": {"model_name": "gpt2", **settings}} if in_metadata else config | settings,
        weights(),
    )
    with pytest.raises(ValueError, match=r"cannot be read as sae_lens \(cfg\.json") as raised:
        locate(str(tmp_path)).describe()
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"checkpoint_index": 7}, "sets checkpoint_index=7, with which the model may compute other activations"),
        ({"revision": "step3000"}, "sets revision='step3000'"),
        ({"load_in_8bit": True}, "sets load_in_8bit=True"),
        ({"center_writing_weights": "yes"}, "center_writing_weights in cfg.json must be true or false"),
        ([1], "model_from_pretrained_kwargs in cfg.json must be a JSON object, but it is [1]"),
    ],
)
def test_a_model_that_was_loaded_otherwise_is_refused(tmp_path, arguments, problem):
    config = {"architecture": "standard", "metadata": {"model_from_pretrained_kwargs": arguments}}
    with pytest.raises(ValueError, match="cannot be read as sae_lens") as raised:
        load_sae(published(tmp_path, config, weights()))
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"k": 32.5}, "k in cfg.json must be a whole number of at least 1, but it is 32.5"),
        ({"k": True}, "k in cfg.json must be a whole number of at least 1, but it is True"),
        ({"k": 0}, "k in cfg.json must be a whole number of at least 1, but it is 0"),
        ({"d_in": "8"}, "d_in in cfg.json must be a whole number of at least 1, but it is '8'"),
        ({"d_sae": [24]}, "d_sae in cfg.json must be a whole number of at least 1, but it is [24]"),
        ({"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input in cfg.json must be true or false"),
        ({"architecture": 3}, "architecture in cfg.json must be text, but it is 3"),
        ({"normalize_activations": {"a": 1}}, "normalize_activations in cfg.json must be text"),
        ({"metadata": {"hook_name": ["h"]}}, "hook_name in cfg.json must be text, but it is ['h']"),
        ({"metadata": {"hook_name": "a\nb"}}, "hook_name in cfg.json must be text in one line, but it is 'a\\nb'"),
        ({"metadata": {"model_name": "\ud800"}}, "model_name in cfg.json must be text in one line, but it is "),
        ({"metadata": {"prepend_bos": 1}}, "prepend_bos in cfg.json must be true or false, but it is 1"),
        ({"metadata": {"context_size": 12.5}}, "context_size in cfg.json must be a whole number"),
        ({"metadata": {"sae_sweeps": "x"}}, "sae_sweeps in cfg.json must be a JSON object, but it is 'x'"),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path, config, problem):
    published(tmp_path, {"architecture": "topk", "k": 4, **config}, weights())
    with pytest.raises(ValueError, match="cannot be read as sae_lens") as raised:
        load_sae(tmp_path)
    assert problem in str(raised.value)


@pytest.mark.parametrize("name", ["W_skip", "log_threshold", "b_mag"])
def test_a_tensor_that_the_architecture_does_not_have_is_refused(tmp_path, name):
    published(tmp_path, {"architecture": "standard"}, {**weights(), name: torch.zeros(F)})
    with pytest.raises(
        ValueError, match=rf"sae_weights\.safetensors has {name}, which no SAE of this architecture has"
    ):
        locate(str(tmp_path)).describe()
