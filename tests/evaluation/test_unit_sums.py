"""Sums over documents add up to the metrics, and are those of a slow reference that goes position by position."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.evaluation.evaluate import evaluate_whole
from sae_sweeps.evaluation.unit_sums import RATIOS
from sae_sweeps.saes import BatchTopKSAE, JumpReLUSAE, ReLUSAE, TopKSAE
from tests.conftest import composed

K = 4


@pytest.fixture(scope="module")
def open_source(tiny_model, tmp_path_factory):
    """Text of 120 documents, shorter and longer than a sequence."""
    folder = tmp_path_factory.mktemp("documents")
    for number in range(120):
        (folder / f"{number:03d}.txt").write_text("the people of a great nation are free " * (1 + number * 5 % 11))
    words = [f"model.name={tiny_model}", "model.hook=blocks.1.hook_resid_pre", "dataset=text", "dataset.seq_len=16"]
    words += ["dataset.holdout_every=2", f"dataset.files={folder}/*.txt"]
    return lambda *more: ActivationSource(composed(*words, *more), torch.device("cpu"))


def make_sae(kind, d_in):
    options = {"target_l0": K} if kind in (JumpReLUSAE, ReLUSAE) else {"k": K}
    sae = kind(d_in, 64, seed=0, **options)
    if kind is BatchTopKSAE:
        sae.threshold.fill_(1.2)
    return sae.for_inference()


@pytest.mark.parametrize("kind", [BatchTopKSAE, TopKSAE, JumpReLUSAE, ReLUSAE])
@pytest.mark.parametrize("more", [(), ("dataset.bos=document", "dataset.exclude=none")])
def test_sums_add_up_to_the_metrics(open_source, kind, more):
    source = open_source(*more)
    data = source.held_out(400)
    metrics, _, sums = evaluate_whole(make_sae(kind, source.d_in), source.model, data, k=K, batch_size=32)
    assert sums.unit == "document"
    assert sums.count == len(sums.sums["ce"]) >= 20
    assert sums.sums["activations"].sum() == metrics["held_out_tokens"] - metrics["without_spread"]
    for name in RATIOS:
        part_U, whole_U = sums.get_ratio(name)
        assert part_U.sum() / whole_U.sum() == pytest.approx(metrics[name], abs=1e-6)
    if kind is not TopKSAE:
        assert (sums.sums["error"] != sums.sums["error_at_k"]).any()
        assert (sums.sums["ce"] != sums.sums["ce_at_k"]).any()


def test_each_document_has_its_own_sum(open_source):
    source = open_source()
    data, sae = source.held_out(400), make_sae(TopKSAE, source.d_in)
    _, _, sums = evaluate_whole(sae, source.model, data, k=K, batch_size=32)
    tokens_NS, document_NS = source._read_held_out(400)
    logits_NSV = source.model._hooked.logits(tokens_NS)
    known = sorted(set(document_NS[data.is_data_NS].tolist()))
    expected = {name: np.zeros(len(known)) for name in ("activations", "error", "predictions", "ce_model")}
    for n, s in data.is_data_NS.nonzero().tolist():
        unit, x_D = known.index(int(document_NS[n, s])), data.acts_NSD[n, s]
        expected["activations"][unit] += 1
        recon_D = sae(x_D[None])[0]
        expected["error"][unit] += ((x_D - recon_D).square().sum() / (x_D - x_D.mean()).square().sum()).item()
        if s + 1 < tokens_NS.shape[1]:
            expected["predictions"][unit] += 1
            expected["ce_model"][unit] += functional.cross_entropy(logits_NSV[n, s], tokens_NS[n, s + 1]).item()
    for name, values_U in expected.items():
        assert sums.sums[name] == pytest.approx(values_U, rel=1e-4), name


def test_points_are_paired_only_on_the_same_text(open_source):
    def find(source, tokens):
        sae = make_sae(TopKSAE, source.d_in)
        return evaluate_whole(sae, source.model, source.held_out(tokens), k=K, batch_size=32).sums.fingerprint

    source = open_source()
    assert find(source, 400) == find(open_source("dataset.seed=1"), 400)
    assert find(source, 400) != find(source, 300)
    assert find(source, 400) != find(open_source("dataset.exclude=none"), 400)
