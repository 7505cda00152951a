"""What is loaded is what the files hold: weights, tokenizers and hooks that are not, are refused by name."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertLMHeadModel, GPT2ForSequenceClassification, GPT2Model

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError
from tests.activations.tiny_models import VOCABULARY, D, write_model, write_tokenizer

HOOK = "blocks.1.hook_resid_pre"
TOKENS_NS = torch.randint(0, VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("llama"), "llama")


def load(folder, hook=HOOK, **options):
    config = ModelConfig(name=str(folder), hook=hook, **{"dtype": "float32", "batch_sequences": 2, **options})
    return LanguageModel(config, torch.device("cpu"))


def refusal(folder, **options):
    with pytest.raises(ConfigError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop_norm(weights):
    del weights["model.norm.weight"]


def drop_head(weights):
    del weights["lm_head.weight"]


def drop_embedding(weights):
    del weights["model.embed_tokens.weight"]


def rename_all(weights):
    for name in list(weights):
        weights[f"module.{name}"] = weights.pop(name)


def reshape(weights):
    weights["model.norm.weight"] = torch.ones(D + 1)


def transpose(weights):
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].T.contiguous()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop_norm, "lack 1 of the weights.*model.norm.weight"),
        (drop_head, "lack 1 of the weights.*lm_head.weight"),
        (drop_embedding, "lack 1 of the weights.*model.embed_tokens.weight"),
        (rename_all, "lack .* and .* more"),
        (reshape, r"another shape.*model.norm.weight is \(33,\) instead of \(32,\)"),
        (transpose, r"another shape.*up_proj.weight is \(32, 64\) instead of \(64, 32\)"),
    ],
)
def test_weights_that_are_missing_or_have_another_shape_are_refused_by_name(llama, tmp_path, change, named):
    folder = shutil.copytree(llama, tmp_path / "model")
    change_weights(folder, change)
    message = refusal(folder)
    assert re.search(named, message), message


def test_a_config_with_more_layers_than_the_weights_have_is_refused(llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "model")
    change_json(folder / "config.json", num_hidden_layers=3)
    assert "model.layers.2." in refusal(folder)


def test_tied_heads_and_buffers_are_not_missing_and_surplus_weights_draw_a_warning(tmp_path, caplog):
    folder = write_model(tmp_path, "gpt2", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load(folder)
    assert not caplog.records or "does not use" not in caplog.text
    change_weights(folder, lambda weights: weights.update({"transformer.h.9.ln_1.bias": torch.zeros(D)}))
    load(folder)
    assert "does not use: transformer.h.9.ln_1.bias" in caplog.text


@pytest.mark.parametrize("kept", ["every shard", "one less in the index", "one less in a shard", "one shard less"])
def test_shards_must_be_those_of_their_index(llama, tmp_path, kept):
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(tmp_path, max_shard_size="40KB")
    write_tokenizer(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    named = json.loads(index.read_text())["weight_map"]
    shard = tmp_path / named["model.norm.weight"]
    if kept == "every shard":
        assert load(tmp_path).activations(TOKENS_NS).equal(load(llama).activations(TOKENS_NS))
        return
    if kept == "one less in the index":
        del named["model.norm.weight"]
        change_json(index, weight_map=named)
    elif kept == "one less in a shard":
        weights = load_file(shard)
        del weights["model.norm.weight"]
        save_file(weights, shard, metadata={"format": "pt"})
    else:
        shard.unlink()
    assert ("model.norm.weight" if kept != "one shard less" else f"names {shard.name}, which is missing") in refusal(
        tmp_path
    )


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (GPT2Model, "has no language-model head, so it predicts no tokens (GPT2Model)"),
        (GPT2ForSequenceClassification, "is a classifier (GPT2ForSequenceClassification)"),
    ],
)
def test_a_model_without_a_language_model_head_is_refused_before_loading(tmp_path, library, message):
    folder = write_model(tmp_path, "gpt2", library=library)
    with pytest.raises(ConfigError) as caught:
        read_model_info(str(folder))
    assert message in str(caught.value)


def test_a_model_that_sees_later_tokens_is_refused_whatever_its_config_json_has(llama, tmp_path, monkeypatch):
    from transformers import BertConfig

    import sae_sweeps.activations.architectures as architectures

    config = BertConfig(vocab_size=VOCABULARY, hidden_size=D, num_hidden_layers=2, num_attention_heads=4)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    assert "is an encoder (BertLMHeadModel)" in refusal(tmp_path)
    monkeypatch.setattr(architectures, "ENCODERS", set())
    read_model_info.cache_clear()
    assert "its logits depend on later tokens" in refusal(tmp_path)


def test_a_tokenizer_without_bos_and_eos_is_taken_as_it_is(tmp_path):
    model = load(write_model(tmp_path, "llama", special=None, vocab_size=VOCABULARY + 20))
    assert (model.bos, model.eos) == (None, None)
    assert len(model.tokenizer) == VOCABULARY
    assert max(model.encode(["the people <|endoftext|> of"])[0]) < VOCABULARY


def test_a_token_id_above_the_embedding_is_refused(tmp_path):
    folder = write_model(tmp_path, "llama", vocab_size=100)
    model = load(folder)
    assert model.encode([""]) == [[]]
    with pytest.raises(ConfigError, match=r"gives the id .* but the model's embedding has 100 rows"):
        model.encode(["the people of a great nation"])


def test_a_bos_token_above_the_embedding_is_refused_once_it_is_asked_for(tmp_path):
    folder = write_model(tmp_path, "llama", vocab_size=VOCABULARY)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer.save_pretrained(folder)
    model = load(folder)
    for token in ("bos", "eos"):
        with pytest.raises(ConfigError, match=r"gives the id 30\d .* but the model's embedding has 300 rows"):
            getattr(model, token)


@pytest.mark.parametrize("role", ["bos", "eos"])
def test_a_token_that_the_vocabulary_lacks_is_none_even_if_the_embedding_has_a_row_for_it(tmp_path, caplog, role):
    folder = write_model(tmp_path, "llama", vocab_size=VOCABULARY + 20)
    change_json(folder / "tokenizer_config.json", **{f"{role}_token": "<made-up>"})
    model = load(folder)
    assert getattr(model, role) is None
    assert {"bos": model.eos, "eos": model.bos}[role] == 0
    assert f"lacks its {role.upper()} token '<made-up>'" in caplog.text


@pytest.mark.parametrize("listed", [False, True])
def test_a_bos_token_that_was_added_to_the_vocabulary_is_kept(tmp_path, listed):
    folder = write_model(tmp_path, "llama", special=None, vocab_size=VOCABULARY + 20)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.save_pretrained(folder)
    if listed:
        change_json(folder / "tokenizer_config.json", added_tokens_decoder={"300": {"content": "<s>"}})
    assert load(folder).bos == VOCABULARY


def test_a_folder_without_a_vocabulary_is_refused(tmp_path):
    folder = write_model(tmp_path, "gpt2")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    assert "tokenizer" in refusal(folder)


def test_code_of_a_model_is_never_run(llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "model")
    change_json(
        folder / "config.json",
        model_type="own",
        architectures=["OwnForCausalLM"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    message = refusal(folder)
    assert "wants to run Python code of its own" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["helium", "biogpt", "ctrl"])
def test_an_architecture_that_transformer_lens_does_not_know_is_refused(tmp_path, name):
    from transformers import AutoConfig

    shape = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "n_embd": D, "n_layer": 2, "n_head": 4}
    config = AutoConfig.for_model(name, vocab_size=VOCABULARY, intermediate_size=64, dff=64, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    assert "has an architecture that TransformerLens does not run" in refusal(tmp_path)


class Calls:
    """Stand in for run_with_hooks: call the hooks another number of times, or with another tensor."""

    def __init__(self, model, change):
        self.run, self.change = model._bridge.run_with_hooks, change
        model._bridge.run_with_hooks = self

    def __call__(self, tokens_NS, fwd_hooks=(), **options):
        return self.run(tokens_NS, fwd_hooks=[one for hook in fwd_hooks for one in self.change(*hook)], **options)


def drop(name, call):
    return []


def double(name, call):
    return [(name, call), (name, call)]


def cut(name, call):
    return [(name, lambda acts, hook: ignore(call(acts[:, 1:], hook)))]


def flatten(name, call):
    return [(name, lambda acts, hook: ignore(call(acts.flatten(0, 1), hook)))]


def ignore(replaced):
    return None  # the hook leaves the activations as they are


@pytest.mark.parametrize("change", [drop, double, cut, flatten])
def test_a_hook_that_is_not_called_once_with_its_tensor_is_an_error_never_numbers(llama, change):
    model = load(llama)
    Calls(model, change)
    for read in (model.activations, lambda tokens: model.cross_entropy(tokens, lambda acts, first: 0 * acts)):
        with pytest.raises(ConfigError, match=r"model\.hook=blocks\.1\.hook_resid_pre: the (hook|activations)"):
            read(TOKENS_NS)


def test_a_hook_without_effect_is_refused(llama):
    model = load(llama)
    Calls(model, lambda name, call: [(name, lambda acts, hook: ignore(call(acts, hook)))])
    with pytest.raises(ConfigError, match=r"replacing the activations at the hook has no effect"):
        model._hooked.require_hook("model", HOOK, model._trial)


@pytest.mark.parametrize("hook", ["hook_resid_pre", "hook_resid_post", "hook_mlp_out"])
def test_a_hook_on_another_tensor_is_refused(llama, hook):
    model = load(llama)
    Calls(model, lambda name, call: [(name.replace(hook, "hook_attn_out").replace("_post", "_mid"), call)])
    if hook == "hook_mlp_out":  # transformers has no one place for it: replacing it by itself changes nothing
        model._hooked.require_hook("model", f"blocks.1.{hook}", model._trial)
        return
    with pytest.raises(ConfigError, match="the hook gives other activations than the block"):
        model._hooked.require_hook("model", f"blocks.1.{hook}", model._trial)
