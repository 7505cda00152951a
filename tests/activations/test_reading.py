"""The plain model of transformers reads what TransformerLens reads, and only where it does."""

import logging

import pytest
import torch

from sae_sweeps.activations import loading, plain_model
from sae_sweeps.activations.held_out import measure_held_out
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.activations.plain_model import find_difference
from sae_sweeps.activations.positions import Positions
from sae_sweeps.activations.reading import TOLERANCES, choose_tokens
from sae_sweeps.activations.shared_weights import count_unshared, share_weights
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.places import PROJECT
from tests.activations.test_architectures import TOKENS_NS, Reference
from tests.activations.tiny_models import write_model
from tests.conftest import composed

HOOK = "blocks.1.hook_resid_pre"
# architecture -> the attention that it is read with, and what differs from SHAPES
ATTENTION = {
    "gpt2": ("sdpa", {}),
    "gpt_neox": ("sdpa", {}),
    "opt": ("sdpa", {}),
    "llama": ("sdpa", {}),
    "mistral": ("sdpa", {"sliding_window": 8}),
    "mixtral": ("sdpa", {}),
    "gemma2": ("eager", {}),  # its attention scores have a soft cap
    "gemma3": ("sdpa", {"sliding_window": 8}),
    "gpt_oss": ("eager", {}),  # its attention has sinks
    "bloom": ("eager", {}),
    "mamba": ("eager", {}),
}


def load(folder, hook=HOOK, reader="transformers", **options):
    options = {"batch_sequences": 2, **options}
    return LanguageModel(ModelConfig(name=str(folder), hook=hook, reader=reader, **options), torch.device("cpu"))


def storages(model):
    return {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}


@pytest.mark.parametrize("name", ATTENTION)
def test_every_hook_of_an_architecture_is_read_as_the_bridge_reads_it(name, tmp_path):
    attention, shape = ATTENTION[name]
    folder = write_model(tmp_path, name, **shape)
    reference, hooks = Reference(folder), [f"blocks.1.{place}" for place in read_model_info(str(folder)).hooks]
    model = load(folder)
    found = model.activations_at(TOKENS_NS, hooks)
    for hook in hooks:
        assert model.reader.describe(hook) == {"reader": "transformers", "attention": attention}
        assert find_difference(found[hook], model.activations(TOKENS_NS, hook=hook)) < TOLERANCES[torch.float32]
    for place, kept in (("pre", reference.inputs), ("post", reference.outputs)):
        assert find_difference(found[f"blocks.1.hook_resid_{place}"], reference.side(kept)) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_embedded_model_is_read_alike_in_every_dtype(dtype):
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in (0, 5)]
    model = load(PROJECT / "embedded" / "model", hooks[1], dtype=dtype)
    text = (PROJECT / "docs" / "training.md").read_text()
    tokens_NS = torch.tensor(model.encode([text])[0][:256]).view(2, 128)
    for hook, acts_NSD in model.activations_at(tokens_NS, hooks).items():
        assert model.reader.describe(hook)
        assert acts_NSD.dtype == getattr(torch, dtype)
        assert find_difference(acts_NSD, model.activations(tokens_NS, hook=hook)) < TOLERANCES[acts_NSD.dtype]


def test_a_bfloat16_pass_is_as_near_to_float32_as_the_bridge():
    folder, hook = PROJECT / "embedded" / "model", "blocks.4.hook_resid_pre"
    whole, half = (load(folder, hook, dtype=dtype) for dtype in ("float32", "bfloat16"))
    tokens_NS = torch.tensor(whole.encode([(PROJECT / "README.md").read_text()])[0][:256]).view(2, 128)
    exact_NSD = whole.activations(tokens_NS)
    plain = find_difference(half.activations_at(tokens_NS, [hook])[hook], exact_NSD)
    assert plain < 1.2 * find_difference(half.activations(tokens_NS), exact_NSD)


def test_attention_without_its_soft_cap_is_not_used(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    folder = write_model(tmp_path, "gemma2", attn_logit_softcapping=0.5)
    load(folder)
    assert "eager attention: SDPA has no soft cap" in caplog.text
    monkeypatch.setattr(plain_model, "_has_soft_cap", lambda config: False)
    forward = plain_model.PlainModel._run
    monkeypatch.setattr(plain_model.PlainModel, "_run", lambda self, tokens: forward(_without_cap(self), tokens))
    model = load(folder, "blocks.1.hook_resid_post")
    assert model.reader.describe(model.hook) == {}
    assert "reading blocks.1.hook_resid_post with TransformerLens, which is slower: the model alone" in caplog.text


def _without_cap(plain):
    """Have the attention of Gemma 2 leave its cap out, as versions of transformers do that do not refuse it."""
    for part in plain._model.modules():
        if hasattr(part, "attn_logit_softcapping"):
            part.attn_logit_softcapping = None
    return plain


@pytest.mark.parametrize("fault", ["weights", "refuses"])
def test_a_model_that_differs_is_read_with_transformer_lens(tmp_path, monkeypatch, caplog, fault):
    caplog.set_level(logging.INFO)

    def share(model):
        plain = share_weights(model)
        if fault == "weights":  # one channel of one block, by a thousandth
            weight = plain.model.layers[0].mlp.down_proj.weight.detach().clone()
            weight[0] *= 1.001
            plain.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(weight)
        else:
            plain.model.layers[0].forward = lambda *arguments, **options: 1 / 0
        return plain

    monkeypatch.setattr(loading, "share_weights", share)
    monkeypatch.setattr(loading, "count_unshared", lambda plain, bridge: 0)
    model = load(write_model(tmp_path))
    assert model.reader.describe(HOOK) == {}
    assert torch.equal(model.activations_at(TOKENS_NS, [HOOK])[HOOK], model.activations(TOKENS_NS))
    problem = "gives other activations there (relative error" if fault == "weights" else "cannot run (division by zero)"
    assert f"reading {HOOK} with TransformerLens, which is slower: the model alone {problem}" in caplog.text


def test_a_model_that_cannot_be_copied_is_read_with_transformer_lens(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(torch.nn.Linear, "__deepcopy__", lambda self, memo: 1 / 0, raising=False)
    model = load(write_model(tmp_path))
    monkeypatch.undo()
    assert model.reader.describe(HOOK) == {}
    assert "the model cannot be copied (division by zero)" in caplog.text


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_weights_are_in_memory_once(name, tmp_path):
    model = load(write_model(tmp_path, name))
    plain = model.reader._plain._model
    assert count_unshared(plain, model._bridge) == 0
    assert storages(plain) <= storages(model._bridge) | storages(model._bridge.original_model)
    assert not any(tensor.requires_grad for tensor in plain.parameters())


def test_weights_that_the_bridge_has_replaced_are_not_kept(caplog):
    caplog.set_level(logging.INFO)
    large, small = torch.nn.Linear(30, 30), torch.nn.Linear(30, 2)
    plain = torch.nn.Sequential(large, small)
    for kept, is_kept in (([large, small], True), ([large], True), ([small], False)):
        bridge = torch.nn.Module()
        bridge.original_model = torch.nn.Sequential(*kept)
        assert (loading._keep_plain(plain, bridge) is plain) == is_kept
    assert count_unshared(plain, bridge) == 4 * (30 * 30 + 30)
    assert "has copied 0.0 GiB of weights" in caplog.text


def test_the_bridge_keeps_its_own_attention_and_gelu(tmp_path):
    folder = write_model(tmp_path, "gpt2")
    model, alone = load(folder), load(folder, reader="transformer_lens")
    assert model._bridge.original_model.config._attn_implementation == "eager"
    assert torch.equal(model.activations(TOKENS_NS), alone.activations(TOKENS_NS))
    assert model.cross_entropy(TOKENS_NS) == alone.cross_entropy(TOKENS_NS)
    assert model.fingerprint == alone.fingerprint
    parts = [type(part).__name__ for part in model.reader._plain._model.modules()]
    assert "GELU" in parts
    assert "NewGELUActivation" not in parts
    assert "NewGELUActivation" in [type(part).__name__ for part in model._bridge.original_model.modules()]


def test_hooks_are_read_in_one_pass_that_ends_with_the_last_of_them(tmp_path):
    model = load(write_model(tmp_path, "llama", num_hidden_layers=4))
    hooks = ["blocks.2.hook_attn_out", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.1.hook_mlp_out"]
    alone = {hook: model.activations_at(TOKENS_NS, [hook])[hook] for hook in hooks}
    calls, plain = [], model.reader._plain._model
    for number, block in enumerate(plain.model.layers):
        block.self_attn.register_forward_hook(lambda *arguments, number=number: calls.append(number))
        block.mlp.register_forward_hook(lambda *arguments, number=number: calls.append(10 + number))
    seen = []
    found = model.activations_at(TOKENS_NS, hooks, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]
    assert calls == 2 * [0, 10, 1, 11, 2]
    assert all(torch.equal(found[hook], alone[hook]) for hook in hooks)


def test_a_hook_that_only_the_bridge_has_is_read_beside_the_others(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = load(write_model(tmp_path, "granite"))  # it scales what attention writes, outside of any module
    hooks = ["blocks.1.hook_attn_out", "blocks.1.hook_resid_post"]
    seen, alone = [], {hook: model.activations_at(TOKENS_NS, [hook])[hook] for hook in hooks}
    found = model.activations_at(TOKENS_NS, hooks, lambda done, total: seen.append(done))
    assert seen == [2, 3]
    assert [bool(model.reader.describe(hook)) for hook in hooks] == [False, True]
    assert all(torch.equal(found[hook], alone[hook]) for hook in hooks)
    assert torch.equal(found[hooks[0]], model.activations(TOKENS_NS, hook=hooks[0]))
    assert caplog.text.count(f"reading {hooks[0]} with TransformerLens, which is slower") == 1
    assert caplog.text.count(f"reading {hooks[1]} with transformers, sdpa attention (relative error") == 1


def test_a_hook_that_is_called_twice_or_never_is_an_error(tmp_path):
    model = load(write_model(tmp_path, "gpt2"))
    plain, last = model.reader._plain, "blocks.1.hook_resid_post"
    model.activations_at(TOKENS_NS, [HOOK, last])
    first, second = plain._model.transformer.h
    second.mlp.register_forward_pre_hook(lambda mlp, args: first(args[0]))
    with pytest.raises(ConfigError, match=rf"{HOOK}: the hook was called twice for a batch"):
        model.activations_at(TOKENS_NS, [HOOK, last])
    plain._taps[HOOK] = plain_model.Tap(torch.nn.Identity(), False)
    with pytest.raises(ConfigError, match=rf"{HOOK}: the hook was not called for a batch"):
        model.activations_at(TOKENS_NS, [HOOK, last])


def test_large_positions_do_not_hide_differences_elsewhere():
    expected_PSD = torch.ones(2, 50, 4)
    expected_PSD[:, 0] = 1000
    found_PSD = expected_PSD.clone()
    found_PSD[:, 1:] *= 1.1
    assert float((found_PSD - expected_PSD).norm() / expected_PSD.norm()) < 1e-3
    assert find_difference(found_PSD, expected_PSD) == pytest.approx((0.01 * 49 / 50) ** 0.5, rel=1e-5)
    assert find_difference(torch.full_like(expected_PSD, torch.nan), expected_PSD) == torch.inf


def test_tokens_to_compare_on_are_fixed_and_have_the_special_ones():
    tokens_PS = choose_tokens(1000, 64, [7, None, 2000])
    assert tokens_PS.shape == (2, 64)
    assert len(tokens_PS.unique()) > 120
    assert int(tokens_PS.max()) < 1000
    assert int(tokens_PS[1, 32]) == 7
    assert choose_tokens(50000, 8192, [0]).shape == (2, 256)


def test_held_out_activations_are_those_of_the_model_that_is_evaluated(tmp_path):
    model = load(write_model(tmp_path))
    data = measure_held_out(model, TOKENS_NS, Positions(first=1))
    assert torch.equal(data.acts_NSD, model.activations(TOKENS_NS))
    assert not torch.equal(data.acts_NSD, model.activations_at(TOKENS_NS, [HOOK])[HOOK])
    assert data.from_hook


def test_the_stream_and_its_cache_are_of_the_reader(tiny, tmp_path):
    chunks, paths = [], []
    for reader in ("auto", "transformer_lens", "transformers"):
        config = composed(*tiny, f"activations.cache={tmp_path}", f"model.reader={reader}")
        stream = ActivationSource(config, torch.device("cpu")).stream(config)
        chunks.append(stream.chunk(0))
        paths.append(stream.cache._path(TOKENS_NS, config.model.hook))
        assert stream.cache.hits == (reader == "transformer_lens")
    assert torch.equal(chunks[0], chunks[1])
    assert not torch.equal(chunks[0], chunks[2])
    assert find_difference(chunks[2], chunks[0]) < TOLERANCES[torch.float32]
    assert paths[0] == paths[1] != paths[2]


def test_a_cpu_does_not_copy_the_model_unless_it_is_asked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "share_weights", lambda model: 1 / 0)
    model = load(write_model(tmp_path), reader="auto")
    assert model.reader._plain is None
    assert model.at("blocks.0.hook_mlp_out").reader.describe("blocks.0.hook_mlp_out") == {}
