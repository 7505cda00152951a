"""The metrics of SAEs for which every number can be worked out by hand."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.activations.held_out import measure_held_out
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.positions import Positions
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.saes import TopKSAE
from tests.activations.test_language_model import TOKENS_NS, load

ALL_BUT_BOS = Positions(first=1)


@pytest.fixture(scope="module")
def model(tiny_model) -> LanguageModel:
    return load(tiny_model, "blocks.1.hook_resid_pre")


class Scaled(TopKSAE):
    """An SAE that reconstructs `factor` times the activation's deviation from its mean."""

    def __init__(self, factor, d_in=16):
        super().__init__(d_in, 2 * d_in, k=d_in)
        with torch.no_grad():
            eye_DD = torch.eye(d_in)
            self.W_enc.copy_(torch.cat([eye_DD, -eye_DD]))
            self.W_dec.copy_(factor * torch.cat([eye_DD, -eye_DD]))


def test_a_perfect_sae_loses_nothing(model):
    metrics = evaluate(Scaled(1.0), model, measure_held_out(model, TOKENS_NS, ALL_BUT_BOS))
    assert metrics["nmse"] < 1e-8
    assert metrics["fvu"] < 1e-8
    assert metrics["ce_degradation"] == pytest.approx(0, abs=1e-4)
    assert metrics["ce_recovered_zero"] == pytest.approx(1, abs=1e-3)
    assert metrics["ce_recovered_mean"] == pytest.approx(1, abs=1e-3)
    assert metrics["l0"] == 16
    assert metrics["dead_fraction"] == 0


def test_nmse_is_the_mean_ratio_and_fvu_the_ratio_of_sums(model):
    data = measure_held_out(model, TOKENS_NS, ALL_BUT_BOS)
    metrics = evaluate(Scaled(0.5), model, data)
    assert metrics["nmse"] == pytest.approx(0.25, rel=1e-4)
    deviation_AD = data.acts_AD - data.acts_AD.mean(1, keepdim=True)
    spread_AD = data.acts_AD - data.acts_AD.mean(0)
    fvu = (0.25 * deviation_AD.square().sum() / spread_AD.square().sum()).item()
    assert metrics["fvu"] == pytest.approx(fvu, rel=1e-4)


def test_cross_entropies_are_those_of_activations_replaced_by_hand(model):
    data = measure_held_out(model, TOKENS_NS, ALL_BUT_BOS)
    assert data.acts_AD.shape == (7 * 15, 16)

    def cross_entropy_with(new_NSD):
        return model.cross_entropy(
            TOKENS_NS,
            lambda acts, first: torch.cat([acts[:, :1], new_NSD[first : first + len(acts), 1:]], dim=1),
            ALL_BUT_BOS.find(TOKENS_NS),
        )

    acts_NSD = model.activations(TOKENS_NS)
    mean_D = acts_NSD[:, 1:].flatten(0, 1).mean(0)
    zero, mean = cross_entropy_with(0 * acts_NSD), cross_entropy_with(mean_D.expand_as(acts_NSD))
    assert_close(data.ce, model.cross_entropy(TOKENS_NS, counted_NS=ALL_BUT_BOS.find(TOKENS_NS)))
    assert_close(data.ce_zero, zero)
    assert data.ce_mean == pytest.approx(mean, abs=1e-6)
    sae = Scaled(0.5)
    ce = cross_entropy_with(sae(acts_NSD.flatten(0, 1)).unflatten(0, (7, 16)))
    metrics = evaluate(sae, model, data)
    assert metrics["ce_degradation"] == pytest.approx(ce - data.ce, abs=1e-5)
    assert metrics["ce_recovered_zero"] == pytest.approx((zero - ce) / (zero - data.ce), rel=1e-3)
    assert metrics["ce_recovered_mean"] == pytest.approx((mean - ce) / (mean - data.ce), rel=1e-3)


def test_running_only_the_layers_above_the_hook_gives_the_same_metrics(tiny_model):
    for hook, starts_there in (
        ("blocks.1.hook_resid_pre", True),
        ("blocks.0.hook_resid_post", True),
        ("blocks.1.hook_resid_post", False),  # nothing is above it
        ("blocks.1.hook_mlp_out", False),
    ):
        model = load(tiny_model, hook)
        data = measure_held_out(model, TOKENS_NS, ALL_BUT_BOS)
        assert data.from_hook == starts_there
        whole = dataclasses.replace(data, from_hook=False)
        for sae in (Scaled(1.0), Scaled(0.5)):
            metrics, expected = evaluate(sae, model, data), evaluate(sae, model, whole)
            assert metrics["ce_reconstruction"] == pytest.approx(expected["ce_reconstruction"], abs=1e-6)
        assert (
            model.cross_entropy(TOKENS_NS, counted_NS=ALL_BUT_BOS.find(TOKENS_NS)) == data.ce
        )  # the model runs all its layers again


def test_a_model_that_cannot_start_at_the_hook_runs_all_its_layers(tiny_model, monkeypatch):
    model = load(tiny_model, "blocks.1.hook_resid_pre")

    def fails(*arguments, **options):
        raise RuntimeError("this architecture needs its blocks")

    monkeypatch.setattr("sae_sweeps.activations.hooked_model._pass_through", fails)
    data = measure_held_out(model, TOKENS_NS, ALL_BUT_BOS)
    assert not data.from_hook
    assert evaluate(Scaled(1.0), model, data)["ce_degradation"] == pytest.approx(0, abs=1e-4)


def test_l0_and_dead_latents_count_the_selection_at_inference(model):
    data = measure_held_out(model, TOKENS_NS, ALL_BUT_BOS)
    sae = TopKSAE(16, 40, 3)
    with torch.no_grad():
        sae.W_enc[:10] = 0  # these can never be active
    metrics = evaluate(sae, model, data)
    acts_AF = sae.encode(data.acts_AD)
    assert metrics["l0"] == pytest.approx((acts_AF > 0).sum(1).float().mean().item())
    assert metrics["dead_fraction"] == pytest.approx(1 - (acts_AF > 0).any(0).float().mean().item())
    assert metrics["dead_fraction"] >= 10 / 40
    assert math.isfinite(metrics["ce_recovered_mean"])
