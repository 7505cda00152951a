"""Activations that are kept in 16 bits give the same results to the byte as the same numbers in float32."""

import pytest
import torch
from safetensors.torch import load_file

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer, train
from tests.conftest import composed

CPU = torch.device("cpu")


def train_and_evaluate(config):
    """The state of a trained point, its metrics, the held-out text that studies read, and the source."""
    source = ActivationSource(config, CPU)
    trainer = Trainer(build_sae(config, source.d_in), config.training)
    for _, steps in train([trainer], source.stream(config)):
        for _ in steps:
            pass
    metrics = evaluate(trainer.sae, source.model, source.held_out(config.evaluation.tokens))
    return trainer.state(), metrics, [x_BD for _, x_BD in source.held_out_text(150)], source


@pytest.fixture
def kept_in_float32(monkeypatch):
    """The slow way: a model whose activations are float32 from the beginning."""
    as_they_are = LanguageModel.activations_at

    def read(*words):
        return {hook: acts_NSD.float() for hook, acts_NSD in as_they_are(*words).items()}

    monkeypatch.setattr(LanguageModel, "activations_at", read)


@pytest.fixture(params=["bfloat16", "float16"])
def words(request, tiny):
    return [*tiny, f"model.dtype={request.param}"]


@pytest.mark.parametrize("bias", ["mean", "zero"])
def test_results_are_those_of_activations_in_float32(words, bias, request, tmp_path):
    config = composed(*words, f"training.initial_bias={bias}", f"activations.cache={tmp_path}")
    state, metrics, read, source = train_and_evaluate(config)
    assert source.stream(config).chunk(0).dtype == getattr(torch, config.model.dtype)
    request.getfixturevalue("kept_in_float32")
    config.activations.cache = None
    expected, expected_metrics, expected_read, slow = train_and_evaluate(config)
    assert slow.stream(config).chunk(0).dtype == torch.float32
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    assert metrics == expected_metrics
    assert all(map(torch.equal, read, expected_read))
    assert all(x_BD.dtype == torch.float32 for x_BD in read)


def test_the_cache_keeps_16_bits_and_still_reads_files_of_32(words, request, tmp_path):
    config = composed(*words, f"activations.cache={tmp_path / 'new'}")
    train_and_evaluate(config)
    dtypes = {load_file(file)["activations"].dtype for file in (tmp_path / "new").rglob("*.safetensors")}
    assert dtypes == {getattr(torch, config.model.dtype)}
    found = ActivationSource(config, CPU).stream(config)
    assert found.chunk(0).dtype in dtypes
    assert found.cache.hits == 1
    old = composed(*words, f"activations.cache={tmp_path / 'old'}")
    request.getfixturevalue("kept_in_float32")
    train_and_evaluate(old)
    stream = ActivationSource(old, CPU).stream(old)
    assert stream.chunk(0).dtype == torch.float32
    assert (stream.cache.hits, stream.cache.misses) == (1, 0)
    assert torch.equal(stream.chunk(1), found.chunk(1).float())
