"""Activations with a large mean: SAEs that start from it learn, and those that start from zero draw a warning."""

import logging
import math

import pytest
import torch

from sae_sweeps.config import TrainingConfig
from sae_sweeps.runtime.errors import TrainingError
from sae_sweeps.saes import BatchTopKSAE, GatedSAE, JumpReLUSAE, ReLUSAE, TopKSAE
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import LARGE_MEAN, Trainer, measure_mean, train

D, F, K = 24, 96, 4
KINDS = {
    "jumprelu": lambda **more: JumpReLUSAE(D, F, target_l0=K, bandwidth=0.01, **more),
    "batchtopk": lambda **more: BatchTopKSAE(D, F, K, **more),
    "topk": lambda **more: TopKSAE(D, F, K, **more),
    "relu": lambda **more: ReLUSAE(D, F, target_l0=K, **more),
    "gated": lambda **more: GatedSAE(D, F, target_l0=K, **more),
}


def sparse_activations(mean):
    """Sums of a few of 60 directions, of spread 1, around a mean of this norm."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(60, D, generator=generator), dim=1)
    code = torch.rand(4096, 60, generator=generator) * (torch.rand(4096, 60, generator=generator) < 0.05)
    x_AD = code @ directions + 0.02 * torch.randn(4096, D, generator=generator)
    x_AD = (x_AD - x_AD.mean(0)) / x_AD.std(0).norm()
    return x_AD + mean * torch.nn.functional.normalize(torch.randn(D, generator=generator), dim=0)


def train_on(x_AD, kind, initial_bias, steps=400):
    config = TrainingConfig(
        tokens=256 * steps, batch_size=256, lr=3e-3, initial_bias=initial_bias, dead_after_tokens=4096
    )
    trainer = Trainer(KINDS[kind](normalize_input=False), config)
    for _, chunk_steps in train([trainer], TensorStream(x_AD, 256)):
        for _ in chunk_steps:
            pass
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_mean_silences_few_latents_if_training_starts_from_it(kind):
    near, far = (train_on(sparse_activations(mean), kind, "mean") for mean in (0.5, 20))
    assert near.dead_F.float().mean() < 0.25
    assert far.dead_F.float().mean() < 0.25
    error = [
        (trainer.sae(x_AD) - x_AD).square().mean()
        for trainer, x_AD in ((near, sparse_activations(0.5)), (far, sparse_activations(20)))
    ]
    assert error[1] < 1.3 * error[0]


@pytest.mark.parametrize("mean", [0.0, 3.0, 20.0])
def test_the_saved_jumprelu_sae_needs_no_constant(mean):
    x_AD = sparse_activations(mean)
    sae = train_on(x_AD, "jumprelu", "mean", steps=40).sae
    assert torch.allclose(sae.for_inference()(x_AD), sae(x_AD), atol=1e-3)
    assert (sae.input_center.norm() > 0.5 * mean) == (mean > 0) or mean == 0


@pytest.mark.parametrize("kind", ["jumprelu", "topk", "relu"])
@pytest.mark.parametrize(
    ("mean", "initial_bias", "warns"),
    [(0.3, "zero", False), (1.5, "zero", True), (9, "zero", True), (9, "mean", False)],
)
def test_zero_as_a_start_is_warned_of_where_the_mean_is_large(caplog, kind, mean, initial_bias, warns):
    caplog.set_level(logging.WARNING)
    train_on(sparse_activations(mean), kind, initial_bias, steps=2)
    assert [record.message.startswith("training.initial_bias=zero") for record in caplog.records] == [True] * warns


def test_the_ratio_is_that_of_the_mean_to_the_spread():
    assert measure_mean(sparse_activations(7.0)) == pytest.approx(7.0, rel=1e-3)
    assert measure_mean(sparse_activations(0.0)) < 0.01 < LARGE_MEAN
    assert measure_mean(torch.ones(5, D)) == 0.0


@pytest.mark.parametrize("name", ["sae.b_dec", "adam.W_enc.exp_avg", "adam.W_dec.exp_avg_sq"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_state_that_is_not_finite_is_named(name, value):
    trainer = train_on(sparse_activations(0.0), "topk", "mean", steps=2)
    trainer.require_finite()
    trainer.state()[name].view(-1)[1] = value
    with pytest.raises(TrainingError, match=f"after step 2 these are not finite: {name}"):
        trainer.require_finite()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_activations_in_memory_must_be_finite(value):
    x_AD = sparse_activations(0.0)
    x_AD[17, 3] = value
    with pytest.raises(ValueError, match="must be finite, but 1 of 98304 numbers are NaN or infinite"):
        TensorStream(x_AD, 256)


def test_a_state_from_before_the_constant_existed_is_read():
    old = train_on(sparse_activations(2.0), "jumprelu", "zero", steps=2)
    state = {name: tensor.clone() for name, tensor in old.state().items() if name != "sae.input_center"}
    new = Trainer(KINDS["jumprelu"](normalize_input=False), old.config)
    new.load_state(state)
    assert all(torch.equal(tensor, new.state()[name]) for name, tensor in old.state().items())
