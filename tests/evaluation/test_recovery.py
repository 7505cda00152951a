"""Recovery of planted features: against slow definitions, and for SAEs whose values are known in advance."""

# A activations, D width, F latents, G planted features

import itertools
import math

import pytest
import torch

from sae_sweeps.activations.planted import PlantedDictionary, Truth
from sae_sweeps.activations.synthetic import SyntheticSource
from sae_sweeps.config import EvaluationConfig
from sae_sweeps.config.synthetic import SyntheticConfig
from sae_sweeps.evaluation import recovery
from sae_sweeps.evaluation.evaluate import evaluate, evaluate_whole
from sae_sweeps.evaluation.metrics import METRICS, choose_columns, choose_metrics
from sae_sweeps.evaluation.recovery import assign_latents, measure_recovery
from sae_sweeps.saes import InferenceSAE
from tests.conftest import composed

CPU = torch.device("cpu")


def plant(**settings) -> PlantedDictionary:
    given = {"dim": 16, "features": 16, "active": 2.0, "directions": "orthogonal", "noise": 0.0, **settings}
    return PlantedDictionary(SyntheticConfig(**given), CPU)


def sae_of(W_FD: torch.Tensor, threshold: float = 0.2) -> InferenceSAE:
    """An SAE whose latents fire where an activation has more than `threshold` along their direction."""
    threshold_F, b_dec_D = torch.full((len(W_FD),), threshold), torch.zeros(W_FD.shape[1])
    return InferenceSAE(
        "jumprelu",
        W_enc=W_FD.clone(),
        W_dec=W_FD.clone(),
        b_dec=b_dec_D,
        threshold=threshold_F,
        centers_input=False,
    )


def draw(planted: PlantedDictionary, count: int = 2000) -> tuple[torch.Tensor, Truth]:
    drawn = planted.draw(0, "test", 0, count)
    return drawn.acts_AD, Truth(planted.W_GD, drawn.row_N, drawn.feature_N)


def measure_slowly(sae, acts_AD, truth) -> dict[str, float]:
    """The definitions, with all assignments tried one after another."""
    W_FD = sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)
    cosine_GF = (truth.W_GD @ W_FD.T).abs().tolist()
    features, latents = len(cosine_GF), len(cosine_GF[0])
    if features <= latents:
        choices = (dict(enumerate(chosen)) for chosen in itertools.permutations(range(latents), features))
    else:
        choices = (
            {feature: latent for latent, feature in enumerate(chosen)}
            for chosen in itertools.permutations(range(features), latents)
        )
    best = max(choices, key=lambda choice: sum(cosine_GF[feature][latent] for feature, latent in choice.items()))
    fires_AF = sae.encode(acts_AD) != 0
    planted = set(zip(truth.row_N.tolist(), truth.feature_N.tolist(), strict=True))
    scores = []
    for feature in range(features):
        truly = {row for row, number in planted if number == feature}
        if not truly:
            continue
        found = set(fires_AF[:, best[feature]].nonzero()[:, 0].tolist()) if feature in best else set()
        right = len(found & truly)
        precision, recall = right / len(found) if found else 0.0, right / len(truly)
        scores.append((2 * precision * recall / (precision + recall) if right else 0.0, precision, recall))
    means = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
    return {
        "mcc": sum(cosine_GF[feature][latent] for feature, latent in best.items()) / len(best),
        "mmcs": sum(map(max, cosine_GF)) / features,
        **dict(zip(("feature_f1", "feature_precision", "feature_recall"), means, strict=True)),
        "features_seen": len({number for _, number in planted}),
        "planted_l0": len(planted) / len(acts_AD),
    }


@pytest.mark.parametrize(("features", "latents"), [(5, 5), (4, 6), (6, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize("rows", [2**22, 7])
def test_the_metrics_are_those_of_the_definitions(features, latents, rows, monkeypatch):
    monkeypatch.setattr(recovery, "BLOCK", rows)
    planted = plant(features=features, dim=4, active=0.6, directions="random", noise=0.1)
    acts_AD, truth = draw(planted, 300)
    W_FD = torch.randn(latents, 4, generator=torch.Generator().manual_seed(latents))
    sae = sae_of(W_FD)
    assert measure_recovery(sae, acts_AD, truth) == pytest.approx(measure_slowly(sae, acts_AD, truth), abs=1e-6)


def test_the_planted_dictionary_recovers_all():
    planted = plant()
    acts_AD, truth = draw(planted)
    found = measure_recovery(sae_of(planted.W_GD), acts_AD, truth)
    assert found["mcc"] == pytest.approx(1, abs=1e-6)
    assert found["mmcs"] == pytest.approx(1, abs=1e-6)
    assert found["feature_f1"] > 0.99
    assert found["planted_l0"] == pytest.approx(2, abs=0.1)


def test_order_sign_and_norm_of_latents_do_not_matter_for_the_mcc():
    planted = plant()
    acts_AD, truth = draw(planted)
    order_G = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    scaled = sae_of(planted.W_GD[order_G] * torch.linspace(-3, 5, 16)[:, None])
    assert measure_recovery(scaled, acts_AD, truth)["mcc"] == pytest.approx(1, abs=1e-6)
    opposite = measure_recovery(sae_of(-planted.W_GD), acts_AD, truth)
    assert opposite["mcc"] == pytest.approx(1, abs=1e-6)
    assert opposite["feature_f1"] == 0  # such a latent never fires with its feature


def test_random_directions_are_near_chance():
    planted = plant(dim=64, features=64)
    acts_AD, truth = draw(planted)
    generator = torch.Generator().manual_seed(0)
    found = measure_recovery(
        sae_of(torch.nn.functional.normalize(torch.randn(64, 64, generator=generator))), acts_AD, truth
    )
    assert 0.15 < found["mcc"] < 0.35  # cosines of random directions are of size 1 / 8, and the largest are chosen
    assert found["feature_f1"] < 0.3


def test_latents_with_the_firing_of_other_features_score_nothing():
    """The right directions, found by the filters of other features."""
    planted = plant(features=8, dim=8)
    acts_AD, truth = draw(planted)
    sae = sae_of(planted.W_GD)
    with torch.no_grad():
        sae.W_enc.copy_(planted.W_GD.roll(1, 0))
    found = measure_recovery(sae, acts_AD, truth)
    assert found["mcc"] == pytest.approx(1, abs=1e-6)
    chance = found["planted_l0"] / 8  # how often a feature is active
    assert found["feature_precision"] == pytest.approx(chance, abs=0.1)
    assert found["feature_f1"] < 0.4


def test_a_feature_split_in_two_latents_has_one_of_them():
    """Two latents of the same direction share out the firing, so the one that is assigned misses half of it."""
    planted = plant(features=1, dim=2, active=0.5, magnitude_spread=0.25)
    acts_AD, truth = draw(planted, 4000)
    sae = sae_of(torch.cat([planted.W_GD, planted.W_GD]))
    whole = measure_recovery(sae, acts_AD, truth)
    assert (whole["mcc"], whole["feature_f1"]) == pytest.approx((1, 1), abs=1e-6)
    upper = sae_of(torch.cat([planted.W_GD, planted.W_GD]), 1.0)  # fires above the mean: half of the time
    half = measure_recovery(upper, acts_AD, truth)
    assert half["mcc"] == pytest.approx(1, abs=1e-6)
    assert half["feature_precision"] == 1
    assert half["feature_recall"] == pytest.approx(0.5, abs=0.03)


def test_absorption_lowers_the_recall_of_the_parent_alone():
    """A child's latent holds the parent's direction as well, and the parent's latent does not fire with the child."""
    planted = plant(features=2, dim=2, depth=1, branching=1, active=0.75, child_probability=0.5, magnitude_spread=0.0)
    acts_AD, truth = draw(planted, 4000)
    parent_D, child_D = planted.W_GD
    sae = sae_of(torch.stack([parent_D, (parent_D + child_D) / 2**0.5]))
    with torch.no_grad():
        sae.W_enc.copy_(torch.stack([parent_D - child_D, child_D]))
    found = measure_recovery(sae, acts_AD, truth)
    assert found["mcc"] == pytest.approx((1 + 1 / math.sqrt(2)) / 2, abs=1e-6)
    assert found["feature_precision"] == 1
    child_share = planted.given_parent_G[1].item()  # of the parent's firing
    assert found["feature_recall"] == pytest.approx((1 - child_share + 1) / 2, abs=0.02)


def test_with_fewer_latents_the_mcc_is_of_the_pairs_and_f1_of_all_features():
    planted = plant()
    acts_AD, truth = draw(planted)
    found = measure_recovery(sae_of(planted.W_GD[:4]), acts_AD, truth)
    assert found["mcc"] == pytest.approx(1, abs=1e-6)
    assert found["mmcs"] == pytest.approx(4 / 16, abs=1e-6)
    assert found["feature_recall"] == pytest.approx(4 / 16, abs=0.01)


def test_features_that_are_never_active_are_left_out_of_f1():
    planted = plant(exponent=30.0, active=1.5)
    acts_AD, truth = draw(planted, 200)
    found = measure_recovery(sae_of(planted.W_GD), acts_AD, truth)
    assert found["features_seen"] < 16
    assert found["feature_f1"] == pytest.approx(1, abs=0.01)


def test_dead_latents_and_directions_of_zero_norm_have_values():
    planted = plant()
    acts_AD, truth = draw(planted)
    sae = sae_of(torch.zeros(16, 16))
    found = measure_recovery(sae, acts_AD, truth)
    assert found["mcc"] == found["mmcs"] == found["feature_f1"] == found["feature_precision"] == 0


def test_too_many_pairs_have_no_assignment(monkeypatch):
    monkeypatch.setattr(recovery, "MOST_PAIRS", 100)
    planted = plant()
    acts_AD, truth = draw(planted, 100)
    found = measure_recovery(sae_of(planted.W_GD), acts_AD, truth)
    assert found["mcc"] is None
    assert found["feature_f1"] is None
    assert found["mmcs"] == pytest.approx(1, abs=1e-6)
    assert len(assign_latents(planted.W_GD, planted.W_GD).latent_P) == 0


def test_an_evaluation_has_them_in_place_of_cross_entropies():
    config = composed("dataset=synthetic", "synthetic.dim=16", "synthetic.features=16", "synthetic.active=2")
    config.evaluation = EvaluationConfig(tokens=1000)
    source = SyntheticSource(config, CPU)
    sae, data = sae_of(source.planted.W_GD), source.held_out(1000)
    whole = evaluate_whole(sae, None, data, k=2, batch_size=64)
    assert whole.metrics == evaluate(sae, data, k=2, batch_size=64)
    assert not any(name.startswith(("ce_", "kl_")) for name in whole.metrics)
    assert whole.metrics["mcc"] == pytest.approx(1, abs=1e-6)
    assert whole.sparsity["by_position"] == []
    assert whole.sums is not None
    assert whole.sums.unit == "activation block"
    error_U, count_U = whole.sums.get_ratio("nmse")
    assert error_U.sum() / count_U.sum() == pytest.approx(whole.metrics["nmse"])
    assert whole.sums.get_ratio("ce_degradation") is None


def test_tables_show_what_there_is():
    synthetic = {"nmse": 0.1, "l0": 2.0, "dead_fraction": 0.0, "mcc": 0.9, "feature_f1": 0.8}
    assert list(choose_columns([synthetic]).values()) == ["NMSE", "L0", "dead", "MCC", "F1"]
    text = {"nmse": 0.1, "l0": 2.0, "dead_fraction": 0.0, "ce_degradation": 0.1}
    assert list(choose_columns([text])) == ["nmse", "l0", "dead_fraction", "ce_degradation", "ce_recovered_mean"]
    assert list(choose_columns([])) == list(choose_columns([text]))
    assert not any(metric.name.startswith("ce_") for metric in choose_metrics([synthetic]))
    assert {"mcc", "feature_f1", "ce_degradation"} <= {metric.name for metric in choose_metrics([synthetic, text])}
    assert METRICS["mcc"].best == METRICS["feature_f1"].best == "max"
