"""How many sequences a forward pass takes: by device, without a change of any name."""

import json
from dataclasses import asdict

import pytest
import torch

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import ModelConfig
from sae_sweeps.config.conversion import from_json
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.config.validation import find_problems
from tests.config.test_config import compose_name
from tests.conftest import EARLIER_QUICK, composed

GEMMA = "model=gemma-2-2b"


@pytest.mark.parametrize(
    ("device", "seq_len", "expected"),
    [
        ("cpu", 128, 32),
        ("cpu", 1024, 32),
        ("cuda", 128, 128),
        ("cuda", 1024, 16),
        ("cuda", 100, 163),
        ("cuda", 2**15, 1),
    ],
)
def test_a_gpu_takes_as_many_sequences_as_have_16k_tokens(device, seq_len, expected):
    assert composed().model.sequences_per_pass(device, seq_len) == expected
    assert composed("model.batch_sequences=8").model.sequences_per_pass(device, seq_len) == 8
    assert composed(GEMMA).model.sequences_per_pass(device, seq_len) == (16 if device == "cpu" else expected)


def test_points_keep_the_names_that_they_had_with_one_number_for_every_device():
    assert compose_name(GEMMA, *EARLIER_QUICK).endswith("-7cd4f592")
    assert compose_name(GEMMA, "model.batch_sequences=16") == compose_name(GEMMA)
    assert compose_name("model=gpt2-small", *EARLIER_QUICK).endswith("-05f4b415")
    assert compose_name("model.batch_sequences=32") == compose_name() == compose_name("device=cuda")
    assert compose_name("model.batch_sequences=8") != compose_name()


def test_streams_keep_their_names_and_settings_from_before_are_read():
    config = composed()
    settings = select_stream_settings(config)["model"]
    assert settings["batch_sequences"] == 32
    assert "cpu_sequences" not in settings
    before = asdict(composed("model.batch_sequences=32"))
    del before["model"]["cpu_sequences"]
    rebuilt = from_json(json.loads(json.dumps(before)))
    assert rebuilt.model.sequences_per_pass("cuda", 128) == 32
    assert select_stream_settings(rebuilt) == select_stream_settings(config)


def test_a_cache_is_of_the_number_that_is_used(tiny, tmp_path):
    cache = f"activations.cache={tmp_path}"
    origins = []
    for words in ([], ["model.batch_sequences=32"], ["model.cpu_sequences=5"], ["model.batch_sequences=5"]):
        config = composed(*tiny, cache, *words)
        origins.append(ActivationSource(config, torch.device("cpu")).stream(config).cache._origin)
    assert origins[0] == origins[1] != origins[2] == origins[3]
    assert origins[0]["batch_sequences"] == 32


def test_the_model_runs_the_number_that_is_used(tiny, monkeypatch):
    monkeypatch.setattr(ModelConfig, "sequences_per_pass", lambda self, device, seq_len: 3)
    config, seen = composed(*tiny), []
    source = ActivationSource(config, torch.device("cpu"))
    source.model.activations(torch.ones(7, 16, dtype=torch.int64), lambda done, total: seen.append(done))
    assert seen == [3, 6, 7]


@pytest.mark.parametrize("setting", ["model.batch_sequences", "model.cpu_sequences"])
def test_a_number_below_1_is_refused(setting):
    assert [problem.setting for problem in find_problems(composed(f"{setting}=0"))] == [setting]
