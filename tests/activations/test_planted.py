"""Activations of a planted dictionary: their statistics are those of the settings, however they are cut into chunks."""

# A activations, D width, G planted features

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from sae_sweeps.activations.planted import (
    PlantedDictionary,
    draw_directions,
    find_parents,
    find_probabilities,
    make_powers,
)
from sae_sweeps.config.synthetic import SyntheticConfig

CPU = torch.device("cpu")


def plant(**settings) -> PlantedDictionary:
    return PlantedDictionary(SyntheticConfig(**{"dim": 8, "features": 12, "active": 3.0, **settings}), CPU)


def values_of(planted: PlantedDictionary, count: int, seed: int = 0) -> torch.Tensor:
    """The value of each feature in each activation, (A, G), 0 where it is not active."""
    drawn = planted.draw(seed, "test", 0, count)
    value_AG = torch.zeros(count, len(planted.W_GD))
    value_AG[drawn.row_N, drawn.feature_N] = drawn.value_N
    return value_AG


def test_activations_are_sums_of_active_directions():
    planted = plant(noise=0.0, bias=2.0)
    drawn = planted.draw(0, "test", 3, 50)
    expected_AD = planted.bias_D.repeat(50, 1)
    for row, feature, value in zip(drawn.row_N, drawn.feature_N, drawn.value_N, strict=True):
        expected_AD[row] += value * planted.W_GD[feature]
    assert_close(drawn.acts_AD, expected_AD)
    assert planted.bias_D.norm().item() == pytest.approx(2.0)
    assert_close(planted.W_GD.norm(dim=1), torch.ones(12))


def test_noise_has_the_norm_of_the_setting():
    quiet, noisy = (plant(noise=noise).draw(0, "test", 0, 5000).acts_AD for noise in (0.0, 0.3))
    assert (noisy - quiet).square().sum(1).mean().sqrt().item() == pytest.approx(0.3, rel=0.03)


def test_the_sequence_is_the_same_however_it_is_cut():
    planted = plant(features=3000, dim=4, active=5.0)  # blocks of 1398 activations
    assert planted.block_rows == 2**22 // 3000
    whole = planted.draw(1, "test", 0, 4000)
    parts = [planted.draw(1, "test", first, 800) for first in range(0, 4000, 800)]
    assert torch.equal(whole.acts_AD, torch.cat([part.acts_AD for part in parts]))
    assert torch.equal(whole.row_N, torch.cat([part.row_N + 800 * at for at, part in enumerate(parts)]))
    assert torch.equal(whole.feature_N, torch.cat([part.feature_N for part in parts]))


def test_other_seeds_and_purposes_draw_other_activations():
    planted = plant()
    drawn = [planted.draw(seed, what, 0, 4).acts_AD for seed, what in ((0, "a"), (1, "a"), (0, "b"))]
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
    assert not torch.equal(plant(seed=1).W_GD, planted.W_GD)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("active", [0.3, 3.0, 11.0, 12.0])
def test_probabilities_follow_the_power_law_up_to_1(exponent, active):
    settings = SyntheticConfig(features=12, active=active, exponent=exponent)
    probability_G, given_G = find_probabilities(settings)
    assert probability_G.sum() == pytest.approx(active)
    assert (probability_G <= 1).all()
    assert np.array_equal(probability_G, given_G)
    free = probability_G < 1
    law_G = np.arange(1, 13) ** -exponent
    if free.any():
        assert np.ptp(probability_G[free] / law_G[free]) < 1e-9


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_features_are_active_as_often_as_their_probabilities_say(correlation):
    planted = plant(depth=2, branching=3, active=2.5, correlation=correlation, correlation_rank=2)
    active_AG = values_of(planted, 40_000) > 0
    assert_close(active_AG.double().mean(0), planted.probability_G, atol=0.012, rtol=0)
    assert active_AG.sum(1).double().mean().item() == pytest.approx(2.5, abs=0.05)


def test_a_child_is_active_only_with_its_parent_and_no_more_often_than_the_setting():
    planted = plant(features=13, depth=2, branching=3, active=3.0, child_probability=0.4)
    assert find_parents([1, 3, 9]).tolist() == [-1, 0, 0, 0, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    active_AG = values_of(planted, 20_000) > 0
    for child, parent in enumerate(planted.parent_G.tolist()):
        if parent >= 0:
            assert not (active_AG[:, child] & ~active_AG[:, parent]).any()
            share = active_AG[active_AG[:, parent], child].double().mean().item()
            assert share == pytest.approx(planted.given_parent_G[child].item(), abs=0.05)
            assert planted.given_parent_G[child] <= 0.4 + 1e-12


def test_correlated_features_are_active_together_more_or_less_often():
    planted = plant(correlation=0.8, correlation_rank=1, exponent=0.0, active=6.0)
    active_AG = (values_of(planted, 20_000) > 0).double()
    found_GG = torch.corrcoef(active_AG.T)
    sign_G = planted.loading_GR[:, 0].sign()
    expected_GG = sign_G[:, None] * sign_G
    assert (sign_G > 0).any()
    assert (sign_G < 0).any()
    # halves of two normal variables of correlation r: (2 / pi) asin(r), here r = 0.8
    assert_close(
        found_GG - torch.eye(12), (1 - torch.eye(12)) * expected_GG * 0.59033, atol=0.03, rtol=0, check_dtype=False
    )


def test_magnitudes_have_the_mean_and_the_spread_of_the_settings():
    planted = plant(magnitude=2.0, magnitude_spread=0.1, magnitude_exponent=1.0, exponent=0.0, active=6.0)
    value_AG = values_of(planted, 20_000)
    for feature in range(12):
        value_M = value_AG[:, feature][value_AG[:, feature] > 0]
        mean = 2.0 / (feature + 1)
        assert value_M.mean().item() == pytest.approx(mean, rel=0.01)
        assert value_M.std().item() == pytest.approx(0.1 * mean, rel=0.05)
    assert_close(planted.magnitude_G, (2 * make_powers(12, 1.0)).float())


def test_orthogonal_directions_are_orthonormal_or_reach_welchs_bound():
    few_GD = draw_directions(SyntheticConfig(dim=16, features=10, directions="orthogonal"))
    assert_close(few_GD @ few_GD.T, torch.eye(10), atol=1e-5, rtol=0)
    many_GD = draw_directions(SyntheticConfig(dim=16, features=40, directions="orthogonal"))
    square_GG = (many_GD @ many_GD.T).square()
    assert_close(many_GD.norm(dim=1), torch.ones(40))
    mean = ((square_GG.sum() - 40) / (40 * 39)).item()
    assert mean == pytest.approx((40 - 16) / (16 * 39), rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"features": 1, "active": 1.0},
        {"features": 1, "active": 0.01, "noise": 0.0},
        {"dim": 1},
        {"active": 12.0, "noise": 0.0},
        {"features": 300, "dim": 2, "directions": "orthogonal"},
        {"exponent": 1000.0},
        {"magnitude_exponent": 4.0, "magnitude_spread": 10.0},
        {"depth": 5, "branching": 1, "active": 1.5},
        {"correlation": 0.999, "correlation_rank": 1024},
    ],
)
def test_extreme_settings_give_finite_activations(settings):
    planted = plant(**settings)
    drawn = planted.draw(0, "test", 0, 500)
    assert drawn.acts_AD.shape == (500, planted.settings.dim)
    assert drawn.acts_AD.isfinite().all()
    assert drawn.l0 == pytest.approx(planted.settings.active, rel=0.3, abs=0.05)


def test_the_dictionary_and_its_settings_are_saved(tmp_path):
    planted = plant(depth=1, active=2.0)
    planted.save(tmp_path / "planted" / "name")
    tensors = load_file(tmp_path / "planted" / "name.safetensors")
    assert torch.equal(tensors["directions"], planted.W_GD)
    assert torch.equal(tensors["parents"], planted.parent_G)
    assert SyntheticConfig(**json.loads((tmp_path / "planted" / "name.json").read_text())) == planted.settings
