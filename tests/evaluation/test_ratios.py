"""A ratio without anything to divide by is none, with a reason; a number that is none never passes for a result."""

import math
from types import SimpleNamespace

import pytest
import torch

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.predictions import Losses
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.evaluation.metrics import find_concentration
from sae_sweeps.evaluation.ratios import compute_spread, describe_metrics, divide, explain_missing, require_numbers
from sae_sweeps.runtime.errors import TrainingError
from sae_sweeps.saes import BatchTopKSAE, InferenceSAE, TopKSAE

D = 16


@pytest.mark.parametrize(
    ("part", "whole", "rounding", "expected"),
    [
        (3, 2, 0.0, 1.5),
        (0, 2, 0.0, 0),
        (0, 0, 0.0, None),
        (3, 0.0, 0.0, None),
        (3, -0.0, 0.0, None),
        (1, 1e-9, 1e-6, None),
        (1, -1e-9, 1e-6, None),
        (1, -2e-6, 1e-6, -5e5),
    ],
)
def test_divide(part, whole, rounding, expected):
    assert divide(part, whole, rounding) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("row", "has_spread"),
    [
        (torch.zeros(D), False),
        (torch.full((D,), 0.1), False),
        (torch.full((D,), 12345.678), False),
        (torch.full((D,), -1e-20), False),
        (1000 + torch.linspace(0, 1, D), True),
        (1e-6 * torch.linspace(0, 1, D), True),
        (torch.eye(D)[3], True),
    ],
)
def test_an_activation_has_no_spread_if_its_entries_are_equal_but_for_rounding(row, has_spread):
    _, found_B = compute_spread(torch.stack([torch.randn(D), row]))
    assert found_B.tolist() == [True, has_spread]


def held_out(acts_NSD, *, ce=2.0, ce_zero=5.0, ce_mean=4.0, with_reconstruction=2.5):
    """Held-out data of a model whose cross-entropies are given, and the model."""
    shape = acts_NSD.shape[:2]
    tokens_NS = torch.zeros(shape, dtype=torch.int64)
    data = HeldOut(tokens_NS, acts_NSD, torch.ones(shape, dtype=torch.bool), 0, False, ce, ce_zero, ce_mean)

    def compare(tokens_NS, original, replacements, counted_NS, *, from_hook):
        return [Losses(with_reconstruction, 0.1)] * len(replacements)

    return SimpleNamespace(cross_entropy=None, compare=compare), data


def make_sae(normalization):
    sae = BatchTopKSAE(D, 2 * D, 4).for_inference()
    sae.normalization = normalization
    return sae


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("value", [0.0, 0.1, -300.0])
def test_activations_without_spread_are_left_out_of_nmse_and_counted(normalization, value):
    acts_NSD = torch.randn(4, 8, D, generator=torch.Generator().manual_seed(0))
    without_spread = acts_NSD.clone()
    without_spread[0, 2:5] = value
    sae = make_sae(normalization)
    metrics = evaluate(sae, *held_out(without_spread))
    require_numbers(metrics, "")
    assert metrics["without_spread"] == 3
    rest = torch.cat([acts_NSD.flatten(0, 1)[:2], acts_NSD.flatten(0, 1)[5:]])
    assert metrics["nmse"] == pytest.approx(evaluate(sae, *held_out(rest[None]))["nmse"], rel=1e-6)


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("row", [torch.zeros(D), torch.full((D,), 0.3)])
def test_equal_activations_without_spread_have_neither_nmse_nor_fvu(normalization, row):
    metrics = evaluate(make_sae(normalization), *held_out(row.expand(2, 8, D).clone()))
    missing = explain_missing(metrics)
    assert missing.keys() == {"nmse", "fvu", "top_variance_share"}
    assert missing["nmse"] == "no held-out activation has a spread over its entries"
    require_numbers(metrics, "")
    assert f"nmse none ({missing['nmse']})" in describe_metrics(metrics)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"ce_zero": 2.0}, {"ce_recovered_zero"}),
        ({"ce_mean": 2.0 + 1e-7}, {"ce_recovered_mean"}),
        ({"ce_zero": 2.0 - 1e-7, "ce_mean": 2.0}, {"ce_recovered_zero", "ce_recovered_mean"}),
        ({"ce_zero": 2.01}, set()),
    ],
)
def test_ce_recovered_is_none_where_ablation_changes_nothing(given, missing):
    metrics = evaluate(make_sae("none"), *held_out(torch.randn(4, 8, D), **given))
    assert explain_missing(metrics).keys() == missing


@pytest.mark.parametrize("share", [0.005, 0.01])
def test_few_activations_with_most_of_the_variance_are_named(share):
    acts_AD = torch.randn(400, D, generator=torch.Generator().manual_seed(0))
    metrics = evaluate(make_sae("none"), *held_out(acts_AD[None]))
    assert metrics["top_variance_share"] < 0.1
    assert find_concentration(metrics) is None
    acts_AD[: int(400 * share)] *= 100
    metrics = evaluate(make_sae("none"), *held_out(acts_AD[None]))
    assert metrics["top_variance_share"] > 0.9
    assert "% of the variance, so they decide the FVU of" in find_concentration(metrics)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_an_error(value):
    require_numbers({"nmse": None, "l0": 3.0, "seen": 7, "name": "nan"}, "")
    with pytest.raises(TrainingError, match=r"fvu is -?(nan|inf)\. Lower the rate"):
        require_numbers({"nmse": 0.1, "fvu": value}, "Lower the rate")


def test_an_activation_of_norm_0_is_its_own_reconstruction_after_rescaling():
    W_FD = torch.eye(D)
    sae = InferenceSAE(
        "topk", W_enc=W_FD, W_dec=W_FD, b_dec=torch.ones(D), k=2, centers_input=True,
        normalization="constant_norm_rescale",
    )  # fmt: skip
    assert torch.equal(sae(torch.zeros(3, D)), torch.zeros(3, D))
    assert TopKSAE(D, D, 2)(torch.zeros(3, D)).isfinite().all()
