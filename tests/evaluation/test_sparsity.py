"""Numbers of active latents and KL divergence, of SAEs and models for which they are known."""

# N sequences, S positions, D model width, V vocabulary

import dataclasses
import json

import pytest
import torch
from torch.nn import functional

from sae_sweeps.activations import language_model, predictions
from sae_sweeps.activations.held_out import HeldOut, measure_held_out
from sae_sweeps.activations.positions import Positions
from sae_sweeps.evaluation.evaluate import evaluate, evaluate_whole
from sae_sweeps.evaluation.sparsity import BINS, count_in_bins
from sae_sweeps.saes import InferenceSAE
from tests.activations.test_language_model import TOKENS_NS, load
from tests.evaluation.test_evaluate import Scaled

D = 6


def unit_sae(threshold: float = 0.5) -> InferenceSAE:
    """An SAE whose active latents are the entries of an activation above a threshold."""
    eye = torch.eye(D)
    weights = {"W_enc": eye, "W_dec": eye, "b_dec": torch.zeros(D), "threshold": torch.full((D,), threshold)}
    return InferenceSAE("batchtopk", **weights, centers_input=False)


def planted(active_NS: list[list[int]]) -> HeldOut:
    """Held-out data of which the SAE has this many active latents at each position; token 0 is special."""
    count_NS = torch.tensor(active_NS)
    acts_NSD = (torch.arange(D) < count_NS[..., None]).float() + 0.01 * torch.arange(D)
    tokens_NS = torch.ones_like(count_NS)
    tokens_NS[:, 0] = 0
    tokens_NS[1, 2] = 0
    positions = Positions(excluded=(0,), first=1, special=(0,))
    data = HeldOut(tokens_NS, acts_NSD, positions.find(tokens_NS), 1, False, 2.0, 5.0, 4.0)
    data.is_special_NS = positions.find_special(tokens_NS)
    return data


class NoModel:
    """A model whose losses are given."""

    def compare(self, tokens_NS, original, replacements, counted_NS, *, from_hook):
        return [predictions.Losses(2.5, 0.25)] * len(replacements)


ACTIVE_NS = [[6, 1, 2, 3], [6, 3, 5, 3], [4, 2, 1, 0]]


def test_a_planted_number_of_active_latents_is_found_where_it_is():
    data = planted(ACTIVE_NS)
    metrics, sparsity, _ = evaluate_whole(unit_sae(), NoModel(), data, k=2, batch_size=4)
    assert metrics["l0"] == pytest.approx((1 + 2 + 3 + 3 + 3 + 2 + 1 + 0) / 8)
    assert sparsity["histogram"] == {"width": 1, "counts": [1, 2, 2, 3]}
    assert sparsity["by_position"] == [None, 2.0, 1.5, 2.0]
    assert sparsity["special"] == {"positions": 4, "l0": pytest.approx((6 + 6 + 5 + 4) / 4)}
    assert json.loads(json.dumps(sparsity)) == sparsity
    assert metrics["kl_divergence"] == 0.25
    assert metrics["ce_degradation"] == 0.5


def test_special_tokens_that_count_as_data_are_apart_from_the_text_at_each_position():
    data = dataclasses.replace(planted(ACTIVE_NS), is_data_NS=torch.ones(3, 4, dtype=torch.bool))
    _, sparsity, _ = evaluate_whole(unit_sae(), NoModel(), data, k=2, batch_size=4)
    assert sum(sparsity["histogram"]["counts"]) == 12
    assert sparsity["by_position"] == [None, 2.0, 1.5, 2.0]
    assert sparsity["special"]["positions"] == 4


@pytest.mark.parametrize("largest", [0, 1, BINS - 1, BINS, 1000, 24_575])
def test_a_histogram_has_few_bins_of_one_width(largest):
    active_A = torch.tensor([0, largest, largest // 2, largest])
    found = count_in_bins(active_A)
    assert sum(found["counts"]) == 4
    assert len(found["counts"]) <= BINS
    assert found["counts"][largest // found["width"]] >= 2
    assert found["width"] == 1 or largest >= found["width"] * BINS / 2


@pytest.fixture(scope="module")
def model(tiny_model):
    return load(tiny_model, "blocks.1.hook_resid_pre")


def reference_kl(model, data, recon_NSD) -> float:
    """KL divergence written out, with the logits of all positions at once, in float64."""
    _, hook = model, model.hook
    p, q = (
        functional.softmax(model._hooked.logits(data.tokens_NS, hook, lambda acts, new=new: new).double(), dim=-1)
        for new in (data.acts_NSD, recon_NSD)
    )
    return (p * (p / q).log()).sum(-1)[:, :-1][data.is_data_NS[:, :-1]].mean().item()


@pytest.mark.parametrize("from_hook", [True, False])
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_kl_divergence_is_that_of_the_probabilities(model, monkeypatch, from_hook, at_once):
    positions = Positions(excluded=(int(TOKENS_NS[0, 3]),), first=1)
    data = measure_held_out(model, TOKENS_NS, positions)
    sae = Scaled(0.5).for_inference()
    recon_NSD = data.acts_NSD.clone()
    recon_NSD[data.is_data_NS] = sae(data.acts_AD)
    expected = reference_kl(model, data, recon_NSD)
    monkeypatch.setattr(language_model, "LOGITS_IN_MEMORY", at_once * model._bridge.cfg.d_vocab)
    assert data.final_NSD is not None
    data = dataclasses.replace(data, from_hook=from_hook)
    if not from_hook:  # the whole model runs once more
        data.final_NSD = None
    metrics = evaluate(sae, model, data)
    assert expected > 1e-4
    assert metrics["kl_divergence"] == pytest.approx(expected, rel=1e-3)
    ce = data.cross_entropy_with(model, sae(data.acts_AD))
    assert metrics["ce_reconstruction"] == pytest.approx(ce, rel=1e-6)
    assert evaluate(Scaled(1.0), model, data)["kl_divergence"] == pytest.approx(0, abs=1e-6)


def test_a_known_kl_divergence():
    """p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/4 log 2; a token of neither adds nothing."""
    p, q = (torch.tensor([[*one, 0.0]]) for one in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]))
    total = predictions.LossSum(1)
    for _ in range(3):
        total.add(q.log(), torch.tensor([2]), p.log())
    losses = total.average(3)
    assert losses.kl_divergence == pytest.approx(0.25 * torch.log(torch.tensor(2.0)).item())
    assert losses.cross_entropy == pytest.approx(torch.log(torch.tensor(2.0)).item())
    certain = predictions.LossSum(2)
    certain.add(torch.tensor([[0.0, -torch.inf]]), torch.tensor([0]), torch.tensor([[0.5, 0.5]]).log())
    assert certain.average(1).kl_divergence == torch.inf  # a token that the reconstruction rules out
