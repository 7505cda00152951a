"""Activations and cross-entropies that are not finite are one error that names the dtype, before any training."""

import math

import pytest
import torch

from sae_sweeps.activations.finite import require_finite
from sae_sweeps.activations.held_out import measure_held_out
from sae_sweeps.activations.positions import Positions
from sae_sweeps.activations.predictions import Losses
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError
from tests.activations.test_language_model import TOKENS_NS, load
from tests.conftest import composed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float16", ["overflow", "model.dtype=bfloat16 or model.dtype=float32"]),
        ("bfloat16", ["model.dtype=float32"]),
        ("float32", ["weights"]),
    ],
)
def test_the_error_names_the_dtype_and_a_way_out(dtype, words, value):
    config = ModelConfig(name="model", hook="blocks.0.hook_resid_pre", dtype=dtype)
    require_finite(config, torch.zeros(3), "activations")
    with pytest.raises(ConfigError) as raised:
        require_finite(config, torch.tensor([0.0, value, 1.0]), "activations")
    text = str(raised.value)
    assert text.startswith(f"model.dtype={dtype}: the activations at blocks.0.hook_resid_pre are not finite in {dtype}")
    assert "1 of 3" in text
    assert all(word in text for word in words)


@pytest.mark.parametrize("at", [(0, 1, 0), (6, 15, 15), (3, 7, slice(None))])
def test_a_single_activation_that_is_not_finite_is_enough(tiny_model, monkeypatch, at):
    model = load(tiny_model, "blocks.1.hook_resid_pre")
    acts_NSD = model.activations(TOKENS_NS)
    acts_NSD[at] = math.inf
    monkeypatch.setattr(type(model), "activations", lambda self, tokens_NS, on_progress=None: acts_NSD)
    with pytest.raises(ConfigError, match="held-out activations"):
        measure_held_out(model, TOKENS_NS, Positions(first=1))


def test_what_is_left_out_need_not_be_finite(tiny_model, monkeypatch):
    model = load(tiny_model, "blocks.1.hook_resid_post")
    acts_NSD = model.activations(TOKENS_NS)
    acts_NSD[:, 0] = math.inf
    monkeypatch.setattr(type(model), "activations", lambda self, tokens_NS, on_progress=None: acts_NSD)
    assert math.isfinite(measure_held_out(model, TOKENS_NS, Positions(first=1)).ce)


def test_a_cross_entropy_that_is_not_finite_is_an_error(tiny_model, monkeypatch):
    model = load(tiny_model, "blocks.1.hook_resid_pre")
    monkeypatch.setattr(type(model), "compare", lambda self, *arguments, **options: [Losses(math.nan, 0.0)])
    with pytest.raises(ConfigError, match="model's cross-entropy with the activations"):
        measure_held_out(model, TOKENS_NS, Positions(first=1))


@pytest.mark.parametrize("read", ["chunk", "text"])
def test_chunks_and_the_text_of_studies_are_checked(tiny_model, texts, monkeypatch, read):
    words = [f"model.name={tiny_model}", "model.hook=blocks.1.hook_resid_pre", "dataset=text", "dataset.seq_len=16"]
    config = composed(*words, f"dataset.files={texts}/*.txt", "training.batch_size=64", "training.chunk_batches=1")
    source = ActivationSource(config, torch.device("cpu"))
    compute = type(source.model).activations_at

    def spoil(*given):
        return {hook: acts_NSD * math.nan for hook, acts_NSD in compute(*given).items()}

    monkeypatch.setattr(type(source.model), "activations_at", spoil)
    with pytest.raises(ConfigError, match=r"model\.dtype=float32: the .* activations|activations of chunk 0"):
        source.stream(config).chunk(0) if read == "chunk" else list(source.held_out_text(64))
