"""Streams of activations from documents, files and data sets."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from sae_sweeps import ActivationStream, ModelConfig, TopKSAE, save_sae
from sae_sweeps.runtime.errors import ConfigError
from tests.api.conftest import HOOK
from tests.conftest import composed, sentence


def test_a_composed_configuration_makes_the_same_stream(stream, tiny):
    assert torch.equal(ActivationStream(composed(*tiny)).chunk(2), stream.chunk(2))


def test_documents_in_memory_and_in_files_give_the_same_stream(tiny_model, texts):
    documents = [sentence(number) for number in range(40)]
    here = ActivationStream.from_model(tiny_model, HOOK, texts=documents, seq_len=16, chunk_size=300, seed=3)
    there = ActivationStream.from_model(tiny_model, HOOK, files=f"{texts}/*.txt", seq_len=16, chunk_size=300, seed=3)
    assert (here.d_in, here.chunk_size) == (16, 300)
    for index in (0, 5):
        assert here.chunk(index).shape == (300, 16)
        assert torch.equal(here.chunk(index), there.chunk(index))
    assert torch.equal(here.held_out(60).acts_AD, there.held_out(60).acts_AD)
    assert here.held_out(60).acts_AD.shape == (60, 16)
    unseeded = ActivationStream.from_model(tiny_model, HOOK, texts=documents, seq_len=16, chunk_size=300)
    assert not torch.equal(unseeded.chunk(0), here.chunk(0))
    save_sae(TopKSAE(16, 24, k=2), "mine", here)
    assert "sae-sweeps-" not in Path("mine/cfg.json").read_text()


def test_models_and_data_sets_are_found_by_their_names_in_conf(monkeypatch):
    monkeypatch.setattr("sae_sweeps.api.ActivationSource", MagicMock())
    stream = ActivationStream.from_model("embedded", dataset="embedded")
    config = composed()
    assert (stream.config.model, stream.config.dataset) == (config.model, config.dataset)


def test_activations_are_kept_in_a_cache(tiny_model, texts, tmp_path):
    files = f"{texts}/*.txt"
    first, second = (
        ActivationStream.from_model(tiny_model, HOOK, files=files, seq_len=16, chunk_size=60, cache=tmp_path / "cache")
        for _ in range(2)
    )
    expected = first.chunk(0)
    second._source.model.activations = None  # fails if it is called
    assert torch.equal(second.chunk(0), expected)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"texts": None}, "text=None: a stream needs exactly one text"),
        ({"files": "x/*.txt"}, "text=texts and files: a stream needs exactly one text"),
        ({"texts": "a document"}, "texts=str: must be a list of strings"),
        ({"texts": b"a document"}, "texts=bytes: must be a list of strings"),
        ({"texts": ["a", None]}, "texts=list: must be a list of strings, but texts[1] is null"),
        ({"texts": ["a", "b", ["c"]]}, "texts=list: must be a list of strings, but texts[2] is a list"),
        ({"texts": ("a", float("nan"))}, "texts=list: must be a list of strings, but texts[1] is NaN"),
        ({"texts": []}, "texts=list: no text in 0 documents"),
        ({"texts": ["", " "]}, "texts=list: no text in 2 documents"),
        ({"texts": None, "files": "x/*.csv"}, "files=x/*.csv: must all end in the same one of .txt, .json"),
        ({"texts": None, "files": "nowhere/*.txt"}, "dataset.files=nowhere/*.txt: matches no file"),
        ({"texts": None, "dataset": "wikipedia"}, "dataset=wikipedia: must be one of the files in conf/dataset: emb"),
        ({"hook": None}, "hook=None: this model has no default hook"),
        ({"hook": "blocks.7.hook_resid_pre"}, "model.hook=blocks.7.hook_resid_pre: the model has layers 0 to 1"),
        ({"seq_len": 64}, "dataset.seq_len=64: must be at most 32, the context length of the model"),
        ({"seq_len": 2}, "seq_len=2: must be at least 3"),
        ({"chunk_size": 0}, "chunk_size=0: must be at least 1"),
        ({"device": "gpu"}, "device=gpu: is not a known device"),
        ({"model": "./nowhere"}, "model.name=./nowhere: there is no such folder"),
        ({"model": ModelConfig(name="./nowhere", hook=HOOK)}, "model.name=./nowhere: there is no such folder"),
    ],
)
def test_unusable_settings_are_refused_before_the_model_is_loaded(tiny_model, monkeypatch, settings, problem):
    monkeypatch.setattr("sae_sweeps.activations.source.LanguageModel", None)
    usual = {
        "model": tiny_model,
        "hook": HOOK,
        "texts": [sentence(n) for n in range(40)],
        "seq_len": 16,
        "device": "cpu",
    }
    with pytest.raises(ConfigError) as refused:
        ActivationStream.from_model(**{**usual, **settings})
    assert problem in str(refused.value)
