"""Metrics over every position, and over those of text alone where special tokens count as data."""

import pytest
import torch

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.evaluation.evaluate import evaluate, evaluate_whole
from sae_sweeps.evaluation.metrics import METRICS, choose_metrics
from sae_sweeps.evaluation.ratios import explain_missing
from sae_sweeps.saes import BatchTopKSAE
from tests.conftest import composed


@pytest.fixture(scope="module")
def source(tiny_model, tmp_path_factory):
    """Activations of 400 short documents, so that every sequence has several beginnings of documents."""
    folder = tmp_path_factory.mktemp("short")
    for number in range(400):
        (folder / f"{number:03d}.txt").write_text("the people of a great nation"[: 8 + number % 20])
    words = [f"model.name={tiny_model}", "model.hook=blocks.1.hook_resid_pre", "dataset=text", "dataset.seq_len=16"]
    words += ["dataset.holdout_every=4", f"dataset.files={folder}/*.txt"]
    return lambda *more: ActivationSource(composed(*words, *more), torch.device("cpu"))


AUTHORS = ("dataset.bos=document", "dataset.exclude=none")


def make_sae(d_in: int):
    sae = BatchTopKSAE(d_in, 64, 4)
    sae.threshold.fill_(1.5)
    return sae.for_inference()


def test_every_position_counts_and_beside_it_the_text_alone(source):
    one = source(*AUTHORS)
    data = one.held_out(100)
    assert data.is_data_NS.all()
    bos = one.model.bos
    assert data.text.is_data_NS.equal(data.tokens_NS != bos)
    assert 0 < (data.tokens_NS == bos).sum() < data.tokens_NS.numel() / 4
    sae = make_sae(one.d_in)
    metrics, sparsity, _ = evaluate_whole(sae, one.model, data, k=4, batch_size=32)
    alone = evaluate(sae, one.model, data.text, k=4, batch_size=32)
    del alone["held_out_left_out"]
    assert {name: metrics[f"{name}_text"] for name in alone} == alone
    whole = evaluate(sae, data.acts_AD, k=4, batch_size=32)
    assert {name: metrics[name] for name in whole} == whole
    assert metrics["nmse_text"] != metrics["nmse"]
    assert metrics["ce_model_text"] != metrics["ce_model"]
    assert sum(sparsity["histogram"]["counts"]) == data.tokens_NS.numel()
    assert sparsity["special"]["positions"] == (data.tokens_NS == bos).sum()


def test_the_text_alone_is_measured_as_without_special_tokens_from_the_start(source):
    """Metrics on text alone are those of the same sequences with exclude=special."""
    every, usual = source(*AUTHORS), source("dataset.bos=document")
    tokens_NS = every.held_out(100).tokens_NS
    special = usual.held_out(10**9)
    rows = [special.tokens_NS.tolist().index(row) for row in tokens_NS.tolist()]
    assert special.text is None
    assert special.is_data_NS[rows].equal(every.held_out(100).text.is_data_NS)
    ce = usual.model.cross_entropy(tokens_NS, counted_NS=special.is_data_NS[rows])
    assert every.held_out(100).text.ce == pytest.approx(ce, rel=1e-6)


def test_there_is_one_group_of_metrics_where_no_special_token_counts(source):
    usual = source()
    found = evaluate(make_sae(usual.d_in), usual.model, usual.held_out(60), k=4)
    assert not [name for name in found if name.endswith("_text")]
    assert not [metric for metric in choose_metrics([found]) if metric.name.endswith("_text")]
    separators = source("dataset.exclude=none")  # the token between documents counts
    found = evaluate(make_sae(usual.d_in), separators.model, separators.held_out(60), k=4)
    assert found["held_out_tokens_text"] < found["held_out_tokens"]
    shown = [metric.name for metric in choose_metrics([found])]
    assert {"nmse", "nmse_text", "ce_degradation_at_k_text"} <= set(shown)
    assert METRICS["nmse_text"].title == "NMSE, text"
    assert METRICS["nmse_text"].column is None


def test_a_missing_metric_of_the_text_has_the_reason_of_the_metric():
    assert explain_missing({"fvu_text": None}) == {"fvu_text": "all held-out activations are equal"}
