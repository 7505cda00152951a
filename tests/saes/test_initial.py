"""Initial weights from activations, compared with their definition, latent by latent in float64."""

import math

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.config import TrainingConfig
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.saes import TRAINABLE, BatchTopKSAE, GatedSAE, JumpReLUSAE, ReLUSAE, TopKSAE
from sae_sweeps.saes.initial import RIDGE
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, train

D, F, K = 24, 60, 4
RAW = {"normalize_input": False}


def activations(count=600, dtype=torch.float64):
    """Sums of a few of 90 directions around a mean, with one direction of a larger variance."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(90, D, generator=generator), dim=1)
    code = torch.rand(count, 90, generator=generator) * (torch.rand(count, 90, generator=generator) < 0.03)
    loud = 1.2 * torch.randn(count, 1, generator=generator) * directions[:1]
    return (code @ directions + loud + 0.01 * torch.randn(count, D, generator=generator) + 2).to(dtype)


def started(sae, x_AD):
    sae = sae.to(x_AD.dtype)
    sae.center(x_AD.mean(0))
    sae.start_from(x_AD)
    return sae


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_are_drawn_directions_and_their_matched_filters(dtype):
    x_AD = activations(dtype=dtype)
    sae = started(BatchTopKSAE(D, F, K, **RAW), x_AD)
    x_AD, W_dec_FD, W_enc_FD = (tensor.detach().double() for tensor in (x_AD, sae.W_dec, sae.W_enc))
    centered_AD = x_AD - x_AD.mean(0)
    cosines_FA = W_dec_FD @ torch.nn.functional.normalize(centered_AD, dim=1).T
    assert 0.98 < cosines_FA.amax(1).min() <= cosines_FA.amax(1).max() < 1
    assert len(cosines_FA.argmax(1).unique()) == F  # an activation is drawn at most once

    covariance_DD = sum(torch.outer(x_D, x_D) for x_D in centered_AD) / len(centered_AD)
    ridge = RIDGE * centered_AD.square().mean() * torch.eye(D, dtype=torch.float64)
    inverse_DD = torch.linalg.inv(covariance_DD + ridge)
    filters_FD = []
    for direction_D in torch.nn.functional.normalize(centered_AD[cosines_FA.argmax(1)], dim=1):
        w_D = inverse_DD @ direction_D
        filters_FD.append(w_D / math.sqrt(w_D @ (covariance_DD + ridge) @ w_D))
    scale_F = W_enc_FD.norm(dim=1) / torch.stack(filters_FD).norm(dim=1)
    assert_close(W_enc_FD, scale_F.mean() * torch.stack(filters_FD), rtol=1e-3, atol=1e-4)
    # the ridge is a part of the deviation that is assumed
    assert_close((centered_AD @ W_enc_FD.T).std(0), scale_F.mean().expand(F), rtol=0.05, atol=0)

    def error(factor):
        """The squared error with k active latents per activation, selected one by one from the largest."""
        pre_AF = factor * centered_AD @ W_enc_FD.T
        kept_AF = torch.zeros_like(pre_AF)
        for entry in pre_AF.flatten().argsort(descending=True)[: K * len(x_AD)].tolist():
            kept_AF.view(-1)[entry] = max(0, pre_AF.flatten()[entry])
        return (centered_AD - kept_AF @ W_dec_FD).square().sum().item()

    errors = {factor: error(factor) for factor in (0.0, 0.8, 0.97, 1.0, 1.03, 1.25)}
    assert min(errors, key=errors.get) == 1.0
    assert errors[1.0] < 0.6 * errors[0.0]


@pytest.mark.parametrize(
    "architecture", sorted(TRAINABLE.keys() - {"relu"})
)  # ReLU gains on a model's activations only
def test_training_from_directions_of_the_data_ends_at_a_lower_error(architecture):
    x_AD, held_out_AD = activations(16_000, torch.float32).split([12_800, 3200])
    found = {}
    for weights in ("random", "data"):
        sae = TRAINABLE[architecture](D, 4 * F, K, **RAW)
        settings = {"initial_bias": "mean", "initial_weights": weights, "warmup_steps": 10, "decay_fraction": 1.0}
        trainer = Trainer(sae, TrainingConfig(tokens=12_800, batch_size=128, lr=4e-3, **settings))
        for _, steps in train([trainer], TensorStream(x_AD, 128)):
            for _ in steps:
                pass
        found[weights] = evaluate(sae, held_out_AD)["fvu"]
    assert found["data"] < 0.95 * found["random"], found


@pytest.mark.parametrize("architecture", TRAINABLE)
def test_every_architecture_starts_near_an_l0_of_k_or_at_its_threshold(architecture):
    x_AD = activations(dtype=torch.float32)
    sae = started(TRAINABLE[architecture](D, F, K, **RAW), x_AD)
    assert_close(sae.W_dec.norm(dim=1), torch.ones(F))
    again = started(TRAINABLE[architecture](D, F, K, **RAW), x_AD)
    other = started(TRAINABLE[architecture](D, F, K, **RAW, seed=1), x_AD)
    assert torch.equal(sae.W_dec, again.W_dec)
    assert torch.equal(sae.W_enc, again.W_enc)
    shared = (sae.W_dec @ other.W_dec.T).amax(1) > 0.97
    assert shared.float().mean() < 3 * F / len(x_AD)  # another seed draws other activations


@pytest.mark.parametrize(
    ("sae", "name", "expected"),
    [
        (JumpReLUSAE(D, F, **RAW, sparsity_coefficient=0.1, initial_threshold=1.2), "threshold", 1.2),
        (
            JumpReLUSAE(D, F, **RAW, sparsity_coefficient=0.1, initial_threshold=0.7, threshold_parameter="log"),
            "log",
            0.7,
        ),
        (ReLUSAE(D, F, **RAW, sparsity_coefficient=0.1, initial_threshold=1.3), "b_enc", -1.3),
        (GatedSAE(D, F, **RAW, sparsity_coefficient=0.1, initial_threshold=0.9), "b_enc", -0.9),
    ],
)
def test_thresholds_are_standard_deviations_of_the_pre_activations(sae, name, expected):
    x_AD = activations()
    sae = started(sae, x_AD)
    deviation_F = ((x_AD - x_AD.mean(0)) @ sae.W_enc.detach().T).std(0)
    found_F = {"threshold": lambda: sae.threshold, "log": lambda: sae.inference_threshold, "b_enc": lambda: sae.b_enc}
    # the ridge is a part of the deviation that is assumed
    assert_close(found_F[name]().detach() / deviation_F, torch.full((F,), expected).double(), rtol=0.05, atol=0)


def test_an_absolute_threshold_stays():
    sae = started(JumpReLUSAE(D, F, **RAW, sparsity_coefficient=0.1, absolute_threshold=0.25), activations())
    assert sae.inference_threshold.unique().item() == 0.25


def test_more_latents_than_activations_and_equal_activations():
    x_AD = activations(30, torch.float32)
    sae = started(TopKSAE(D, F, K, **RAW), x_AD)
    similar_FF = sae.W_dec @ sae.W_dec.T - torch.eye(F)
    assert similar_FF.amax() < 0.99999  # no two latents are the same
    equal = TopKSAE(D, F, K, **RAW)
    before = equal.W_dec.detach().clone()
    assert torch.equal(started(equal, torch.ones(50, D)).W_dec, before)
    one = torch.zeros(50, D)
    one[7, 3] = 1.0  # the other 49 have one direction from the mean
    sae = started(TopKSAE(D, F, K, **RAW), one)
    assert sae.W_enc.isfinite().all()
    assert (sae.W_dec @ sae.W_dec.T - torch.eye(F)).amax() < 0.9999
