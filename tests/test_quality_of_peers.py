"""The comparison with other libraries: how it finds a learning rate, what it measures, and how it is continued."""

import argparse
import importlib
import math
from types import ModuleType

import pytest
import torch

from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.saes import TopKSAE


@pytest.fixture
def quality(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    module = importlib.import_module("quality")
    monkeypatch.setattr(module.recipes, "CHUNK", 300)
    return module


@pytest.mark.parametrize(("start", "tried"), [(1, {0.5, 1, 2, 4, 8, 16}), (8, {4, 8, 16}), (32, {4, 8, 16, 32})])
def test_the_best_rate_lies_between_worse_ones(quality, start, tried):
    errors = {}

    def error_at(rate: float) -> float:
        errors[rate] = math.inf if rate > 40 else abs(math.log2(rate / 7))  # inf: training diverged
        return errors[rate]

    assert quality.search_rates(start, error_at) == 8
    assert set(errors) == tried


def test_measures_what_an_sae_leaves(quality):
    sae = TopKSAE(6, 12, 3, seed=1).for_inference()
    x_AD = quality.normalize(torch.randn(40, 6))
    z_AF, recon_AD = sae.encode(x_AD), sae(x_AD)
    assert torch.allclose(x_AD.mean(1), torch.zeros(40), atol=1e-6)
    assert torch.allclose(x_AD.std(1), torch.ones(40))
    assert quality.measure(sae, x_AD) == pytest.approx(
        {
            "nmse": ((x_AD - recon_AD).norm(dim=1) ** 2 / x_AD.norm(dim=1) ** 2).mean().item(),
            "l0": (z_AF != 0).sum().item() / 40,
            "dead": ((z_AF != 0).sum(0) == 0).sum().item() / 12,
        },
        rel=1e-5,
    )


def test_the_rate_of_a_library_rises_and_falls(quality):
    training = importlib.import_module("steps.training")
    factor = training.schedule({"steps": 10, "warmup_steps": 3, "decay_steps": 5})
    assert [factor(step) for step in range(11)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0]


def test_a_second_call_trains_only_what_is_missing(quality, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(quality.recipes, "compose_run", compose_tiny(quality, tiny))
    errors = {0.001: 0.5, 0.002: 0.3, 0.004: 0.4}
    trained = []

    def train(peer, spec, scratch):
        trained.append((peer.name, round(spec["lr"] / (16384 / 48) ** 0.5, 6)))
        return trained[-1][1]

    monkeypatch.setattr(quality.Peer, "train", train)
    monkeypatch.setattr(quality, "train_ours", lambda config, chunks: None)
    measured = lambda sae, x_AD: {"nmse": errors.get(sae, 0.1), "l0": 4.0, "dead": 0.25}  # noqa: E731
    monkeypatch.setattr(quality, "measure", measured)
    args = argparse.Namespace(
        model="embedded", architectures=["batchtopk"], dict_sizes=[48], ks=[4], tokens=600, held_out=150, seed=0,
        settings="training=efficient", peers=["SAELens"], threads=1, results=tmp_path,
    )  # fmt: skip
    for _ in range(2):
        quality.Comparison(args, tmp_path).compare("batchtopk", 48, 4, {})
        assert trained == [("SAELens", 0.002), ("SAELens", 0.001), ("SAELens", 0.004)]
    (page,) = tmp_path.glob("*-quality-embedded.md")
    assert "| BatchTopK | 48 | 4 | sae-sweeps | 0.1000 | 4.0 | 25.0 % |  |  |" in page.read_text()
    assert "| BatchTopK | 48 | 4 | SAELens | 0.3000 | 4.0 | 25.0 % | 0.037 | 0.018 to 0.074 |" in page.read_text()


def compose_tiny(quality, tiny):
    """Return a function that composes a command with the settings of a tiny sweep."""
    original = quality.recipes.compose_run
    small = ["training.batch_size=30", "training.lr=null"]
    return lambda words: original(quality.recipes.keep_last([*tiny, *words, *small]))
