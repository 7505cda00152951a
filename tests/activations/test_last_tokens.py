"""Activations of the last tokens of texts, compared with reading each text on its own."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.activations import last_tokens
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.last_tokens import encode_ends, read_last
from sae_sweeps.config import ModelConfig

TEXTS = ["the people of a great nation", "people", "nation will keep the people of", "a", "the people", "people"] * 3


@pytest.fixture(scope="module")
def model(tiny_model):
    return LanguageModel(ModelConfig(name=str(tiny_model), hook="blocks.1.hook_resid_pre"), torch.device("cpu"))


@pytest.mark.parametrize("bos", [True, False])
def test_each_text_is_read_as_on_its_own(model, bos, monkeypatch):
    monkeypatch.setattr(last_tokens, "USUAL_LENGTH", 1)  # a few texts per pass
    ends, cut = encode_ends(model, TEXTS, model.bos if bos else None, 6)
    calls = []
    acts_TD = read_last(model, ends, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(TEXTS), len(TEXTS))
    assert len(calls) > 2
    assert cut > 0
    assert max(map(len, ends)) == 6
    for text, ids, acts_D in zip(TEXTS, ends, acts_TD, strict=True):
        (whole,) = model.encode([text])
        kept = whole[-(6 - bos) :]
        assert ids == ([model.bos] if bos else []) + kept
        alone_SD = model.activations_at(torch.tensor([ids]), [model.hook])[model.hook][0]
        assert_close(acts_D, alone_SD[-1], rtol=1e-5, atol=1e-5)
    assert not torch.equal(acts_TD[0], acts_TD[1])


def test_passes_have_about_the_usual_number_of_tokens(model):
    lengths = sorted([3, 5, 100, 100, 2000, 2, 7, 4096, 5000])
    batches = list(last_tokens._make_batches(lengths, model))
    assert [place for batch in batches for place in batch] == list(range(len(lengths)))
    tokens = [len(batch) * max(lengths[place] for place in batch) for batch in batches]
    assert all(len(batch) == 1 or total <= 32 * 128 for batch, total in zip(batches, tokens, strict=True))
    assert len(batches) < 6
