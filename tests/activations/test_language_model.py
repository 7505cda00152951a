"""The model's activations and cross-entropy, compared with those of Hugging Face transformers."""

import shutil

import pytest
import torch
from torch.testing import assert_close
from transformers import GPT2LMHeadModel

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.positions import Positions
from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError

TOKENS_NS = torch.randint(1, 300, (7, 16), generator=torch.Generator().manual_seed(0))


def load(folder, hook, **options):
    return LanguageModel(ModelConfig(name=str(folder), hook=hook, batch_sequences=3, **options), torch.device("cpu"))


@pytest.mark.parametrize(
    ("hook", "layer"),
    [("blocks.0.hook_resid_pre", 0), ("blocks.1.hook_resid_pre", 1), ("blocks.0.hook_resid_post", 1)],
)
def test_activations_are_the_hidden_states_of_transformers(tiny_model, hook, layer):
    reference = GPT2LMHeadModel.from_pretrained(tiny_model)
    with torch.no_grad():
        hidden = reference(TOKENS_NS, output_hidden_states=True).hidden_states[layer]
    assert_close(load(tiny_model, hook).activations(TOKENS_NS), hidden, rtol=1e-5, atol=1e-5)


def test_cross_entropy_is_the_loss_of_transformers(tiny_model):
    reference = GPT2LMHeadModel.from_pretrained(tiny_model)
    with torch.no_grad():
        loss = reference(TOKENS_NS, labels=TOKENS_NS).loss.item()
    model = load(tiny_model, "blocks.1.hook_resid_pre")
    assert model.cross_entropy(TOKENS_NS) == pytest.approx(loss, rel=1e-5)
    with torch.no_grad():
        logits_NSV = reference(TOKENS_NS).logits[:, 3:-1]
    later = torch.nn.functional.cross_entropy(logits_NSV.flatten(0, 1), TOKENS_NS[:, 4:].flatten()).item()
    assert model.cross_entropy(TOKENS_NS, counted_NS=Positions(first=3).find(TOKENS_NS)) == pytest.approx(
        later, rel=1e-5
    )
    assert model.cross_entropy(TOKENS_NS, lambda acts, first: acts) == pytest.approx(loss, rel=1e-5)
    assert model.cross_entropy(TOKENS_NS, lambda acts, first: 0 * acts) != pytest.approx(loss, rel=1e-3)


def test_replacements_reach_the_right_sequences(tiny_model):
    model = load(tiny_model, "blocks.1.hook_resid_pre")
    acts_NSD = model.activations(TOKENS_NS)
    seen = []

    def replace(acts, first):
        assert_close(acts, acts_NSD[first : first + len(acts)])
        seen.append((first, len(acts)))
        return acts

    model.cross_entropy(TOKENS_NS, replace)
    assert seen == [(0, 3), (3, 3), (6, 1)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_activations_keep_the_dtype_that_the_model_computes_in(tiny_model, dtype):
    acts_NSD = load(tiny_model, "blocks.1.hook_resid_pre", dtype=dtype).activations(TOKENS_NS)
    assert acts_NSD.dtype == getattr(torch, dtype)


def test_activations_of_any_other_dtype_become_float32(tiny_model, monkeypatch):
    model = load(tiny_model, "blocks.1.hook_resid_pre")

    def read(batch_NS, takes):
        for take in takes.values():
            take(torch.ones(*batch_NS.shape, 16).double())

    monkeypatch.setattr(model._hooked, "read", read)
    assert model.activations(TOKENS_NS).dtype == torch.float32


def test_a_folder_without_weights_is_refused(tiny_model, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    with pytest.raises(ConfigError, match=r"model.name=.*the folder has no weights"):
        load(tmp_path, "blocks.1.hook_resid_pre")


def test_the_logit_lens_is_the_change_of_the_logits(tiny_model, tmp_path):
    reference = GPT2LMHeadModel.from_pretrained(tiny_model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.transformer.ln_f.parameters():  # untrained they are 1 and 0
            parameter += torch.randn(parameter.shape, generator=generator)
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    reference.save_pretrained(folder)
    directions_ND = torch.randn(5, 16, generator=generator)

    def logits(residual_ND):
        with torch.no_grad():
            return reference.lm_head(reference.transformer.ln_f(residual_ND))

    baseline_V = logits(torch.zeros(1, 16))
    assert baseline_V.abs().max() > 0.1
    found_NV = load(folder, "blocks.1.hook_resid_pre").logit_lens(directions_ND)
    assert_close(found_NV, logits(directions_ND) - baseline_V, rtol=1e-5, atol=1e-5)


def test_the_logit_lens_is_float32_whatever_the_model_computes_in(tiny_model):
    directions_ND = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    found, exact = (
        load(tiny_model, "blocks.1.hook_resid_pre", dtype=dtype).logit_lens(directions_ND)
        for dtype in ("bfloat16", "float32")
    )
    assert found.dtype == torch.float32
    assert_close(found, exact, rtol=0.05, atol=0.05)


def test_characters_that_spell_a_special_token_are_text(tiny_model):
    model = load(tiny_model, "blocks.0.hook_resid_pre")
    ids = model.encode(["a <|endoftext|> b", "<|endoftext|>", "plain"])
    assert not any(model.eos in each for each in ids)
    assert "".join(model.tokenizer.convert_ids_to_tokens(ids[1])) == "<|endoftext|>"


def test_a_large_document_is_given_to_the_tokenizer_in_pieces(tiny_model, monkeypatch):
    model = load(tiny_model, "blocks.0.hook_resid_pre")
    for name, size in (
        ("sae_sweeps.activations.language_model.LARGE", 90),
        ("sae_sweeps.activations.pieces.LARGE", 90),
    ):
        monkeypatch.setattr(name, size)
    monkeypatch.setattr("sae_sweeps.activations.pieces.PIECE", 30)
    text = "the people of a great nation\n" * 20
    parts = list(model.cut(text))
    assert len(parts) > 10
    tokens = [
        id
        for part, ids in zip(parts, model.encode([part.text for part in parts]), strict=True)
        for id in ids[part.skip :]
    ]
    assert tokens == model.encode([text])[0]
    assert [part.text for part in model.cut(text[:80])] == [text[:80]]
