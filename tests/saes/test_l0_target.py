"""The L0 controller, with expected values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.config import TrainingConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import GatedSAE, JumpReLUSAE, ReLUSAE
from sae_sweeps.saes.l0_target import L0Target
from sae_sweeps.training.trainer import Trainer, train
from tests.training.test_trainer import Directions

SHORT = TrainingConfig(
    tokens=200 * 256, batch_size=256, lr=3e-3, chunk_batches=2, initial_bias="mean", decay_fraction=0.5
)


def numbers(*values):
    return [torch.tensor(float(value)) for value in values]


def test_the_starting_level_gives_the_target_l0():
    pre_RF = torch.tensor([[4.0, 1.0, -1.0], [0.5, 6.0, 2.0]])
    threshold_F = torch.tensor([1.0, 2.0, 0.5])  # pre / threshold: 4, 0.5, -2 and 0.5, 3, 4
    for target, active in ((0.5, 0), (1.5, 2), (2.5, 3)):  # strictly above the least of those counted
        level = L0Target(target).find_starting_level(pre_RF, threshold_F)
        assert (pre_RF > level * threshold_F).sum() == active
    assert L0Target(9).find_starting_level(pre_RF, threshold_F) == -2  # more than there are


def test_a_step_moves_thresholds_a_fifth_of_the_way_to_the_target():
    target = L0Target(10)
    target.update(*numbers(10.5, 0.3, 20))
    assert_close(target.coefficient, torch.tensor(0.3 / 20))
    assert_close(target.compute_factor(), torch.tensor(math.exp(0.2 * 0.5 / 20)))
    target.update(*numbers(9, 0.1, 10))  # the running mean of the fall is between 10 and 20
    assert_close(target.compute_factor(), torch.tensor(math.exp(-0.2 * 1 / ((0.95 * 20 + 10) / 1.95))))


def test_the_factor_of_one_batch_is_bounded():
    target = L0Target(10)
    for l0, log_factor in ((1000, 0.05), (0, -0.05)):
        target.update(*numbers(l0, 0, 0))  # nothing near a threshold
        assert_close(target.compute_factor(), torch.tensor(math.exp(log_factor)))
        assert target.coefficient == 0


def test_the_coefficient_is_never_negative():
    target = L0Target(10)
    target.update(*numbers(10, -0.5, 20))
    assert target.coefficient == 0


@pytest.mark.parametrize(("l0", "left"), [(12, 1), (10, 1), (9, 0.5), (8, 0), (0, 0)])
def test_the_penalty_is_scaled_down_while_l0_is_below_its_target(l0, left):
    target = L0Target(10)
    target.update(*numbers(l0, 1, 1))
    assert_close(target.scale_penalty(5.0), torch.tensor(float(left)))


@pytest.mark.parametrize("make", [JumpReLUSAE, ReLUSAE, GatedSAE])
def test_k_is_the_target_unless_a_target_or_a_coefficient_is_given(make):
    assert make(4, 8, 3).l0_target.target == 3
    assert make(4, 8, k=3, target_l0=2.5).l0_target.target == 2.5
    with_coefficient = make(4, 8, k=3, sparsity_coefficient=0.1)
    assert (with_coefficient.l0_target, with_coefficient.sparsity_coefficient, with_coefficient.k) == (None, 0.1, 3)
    with pytest.raises(ConfigError, match="k=None: must be given"):
        make(4, 8)
    with pytest.raises(ConfigError, match=r"target_l0=3: cannot be combined with sparsity_coefficient=0\.1"):
        make(4, 8, sparsity_coefficient=0.1, target_l0=3)


PAPER = {"penalty_window": "upper", "threshold_parameter": "log"}


@pytest.mark.parametrize("target", [3, 6.5, 20])
@pytest.mark.parametrize(
    ("decay_fraction", "normalize_input", "options"),
    [(0.0, True, {}), (0.0, False, PAPER), (0.5, True, PAPER), (0.5, False, {})],  # each two values once
)
def test_training_keeps_l0_at_the_target(decay_fraction, target, normalize_input, options):
    """From the first batch on, also where activations are large and not normalised."""
    config = replace(SHORT, decay_fraction=decay_fraction)
    sae = JumpReLUSAE(24, 128, target_l0=target, normalize_input=normalize_input, bandwidth=0.05, **options)
    l0 = [step.l0.item() for _, steps in train([Trainer(sae, config)], Directions()) for step in steps]
    assert l0[0] == pytest.approx(target, rel=0.01)
    assert sum(l0[-50:]) / 50 == pytest.approx(target, rel=0.03)
    held_out_AD = torch.cat([Directions().chunk(1000 + chunk) for chunk in range(8)])
    assert (sae.encode(held_out_AD) > 0).sum(1).float().mean() == pytest.approx(target, rel=0.06)


class Scaled(Directions):
    """Scaled activations; with `outlier`, one coordinate dominates, as in language models."""

    def __init__(self, scale, outlier=0.0):
        super().__init__()
        self.scale, self.outlier = scale, outlier

    def chunk(self, index):
        chunk_AD = super().chunk(index)
        chunk_AD[:, 0] += self.outlier * chunk_AD.norm(dim=1).mean()
        return self.scale * chunk_AD


@pytest.mark.parametrize("scale", [0.05, 50.0])
@pytest.mark.parametrize("make", [ReLUSAE, GatedSAE])
def test_bias_shifts_keep_l0_at_the_target_at_any_scale_of_activations(make, scale):
    trainer = Trainer(make(24, 128, target_l0=6, normalize_input=False), SHORT)
    l0 = [step.l0.item() for _, steps in train([trainer], Scaled(scale)) for step in steps]
    assert sum(l0[-50:]) / 50 == pytest.approx(6, rel=0.03)


@pytest.mark.parametrize("target", [2, 20])
@pytest.mark.parametrize("make", [JumpReLUSAE, ReLUSAE, GatedSAE])
def test_the_target_is_met_if_one_coordinate_dominates(make, target):
    options = {"bandwidth": 0.05} if make is JumpReLUSAE else {}
    trainer = Trainer(make(24, 128, target_l0=target, **options), SHORT)
    l0 = [step.l0.item() for _, steps in train([trainer], Scaled(1.0, outlier=5.0)) for step in steps]
    assert sum(l0[-50:]) / 50 == pytest.approx(target, rel=0.03)
