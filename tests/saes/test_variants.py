"""Variants of the training step that `training=paper` and listed coefficients choose, against the dense definition."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import BatchTopKSAE, JumpReLUSAE, MatryoshkaSAE, TopKSAE, Variant, topk
from tests.reference import dense_step, derivatives_by_threshold_factor
from tests.saes.test_training_step import PUBLISHED, perturbed

D, F = 12, 37
SAES = {
    "topk": lambda: TopKSAE(D, F, 4, aux_latents=5),
    "batchtopk": lambda: BatchTopKSAE(D, F, 4, aux_latents=5),
    "matryoshka": lambda: MatryoshkaSAE(D, F, 4, aux_latents=5, prefixes=[0.1, 0.5, 1.0]),
}


def moved(sae):
    """Return the SAE in float64, with b_dec and the norms of the decoder's rows away from where they start."""
    torch.manual_seed(1)
    with torch.no_grad():
        sae.b_dec += 0.1 * torch.randn(D)
        sae.W_dec *= 0.8 + 0.4 * torch.rand(F, 1)
    return sae.double()


@pytest.mark.parametrize("searched", [0.0, 2.0])
@pytest.mark.parametrize(("counts_batch", "has_residual_gradient"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("architecture", SAES)
def test_a_step_is_the_definition(architecture, counts_batch, has_residual_gradient, searched, monkeypatch):
    monkeypatch.setattr(topk, "SEARCHED", searched)  # dead latents are found in a dense matrix, or searched for
    sae = moved(SAES[architecture]())
    x_BD, dead_F = torch.randn(9, D, dtype=torch.float64), torch.arange(F) % 2 == 0
    variant = Variant(has_unit_rows=False, counts_batch=counts_batch, has_residual_gradient=has_residual_gradient)
    step = sae.training_step(x_BD, dead_F, variant=variant)
    loss, gradients = dense_step(sae, x_BD, dead_F, variant)
    assert_close(step.loss, loss, rtol=1e-10, atol=1e-13)
    for name, parameter in sae.named_parameters():
        assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-13)
    assert 0 < (dead_F & step.fired_F).sum() < dead_F.sum()  # some of the latents wake in this batch


def test_a_latent_that_wakes_is_not_dead_if_the_batch_counts():
    sae, dead_F = TopKSAE(2, 2, 1), torch.tensor([True, False])
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    x_BD = torch.tensor([[2.0, 1.0]])  # latent 0 reconstructs 2, which leaves a residual of (0, 1)
    before = sae.training_step(x_BD, dead_F)
    assert_close(before.aux_loss, torch.tensor((2**2 + 1**2) / 2 / 32))  # latent 0 alone misses the residual by (2, -1)
    assert sae.training_step(x_BD, dead_F, variant=Variant(counts_batch=True)).aux_loss == 0


def test_rows_are_scaled_after_the_gradient_has_lost_its_part_along_them():
    sae = moved(SAES["topk"]())
    sae.training_step(torch.randn(9, D).double(), torch.zeros(F).bool(), variant=Variant(has_unit_rows=False))
    sae.normalize_rows()
    assert_close(sae.W_dec.norm(dim=1), torch.ones(F).double())
    assert (sae.W_dec.grad * sae.W_dec).sum(1).abs().max() < 1e-15


@pytest.mark.parametrize(("window", "penalized"), [("both", 3), ("upper", 2)])
@pytest.mark.parametrize("parameter", ["plain", "log"])
def test_the_gradient_of_a_threshold_worked_out_by_hand(window, penalized, parameter):
    """Pre-activations 0.9, 1.1, 1.15 and 1.5 at a threshold of 1, with a kernel from 0.8 to 1.2."""
    sae = JumpReLUSAE(
        1,
        1,
        sparsity_coefficient=0.1,
        bandwidth=0.4,
        penalty_window=window,
        threshold_parameter=parameter,
        absolute_threshold=1,
        normalize_input=False,
    )
    with torch.no_grad():
        sae.W_enc.fill_(1)
        sae.W_dec.fill_(1)
    step = sae.training_step(torch.tensor([[0.9], [1.1], [1.15], [1.5]]), torch.zeros(1).bool())
    assert step.l0 == 0.75
    # reconstructions are 0, 1.1, 1.15, 1.5, so only the first misses, by -0.9: the derivative of the error by its
    # activation is 2 * -0.9 / 4, and that of the activation by the threshold -1 / 0.4
    error_part, penalty_part = -(2 * -0.9 / 4) / 0.4, -0.1 * penalized / 4 / 0.4
    (gradient,) = (value.grad for name, value in sae.named_parameters() if name.endswith("threshold"))
    assert_close(gradient, torch.tensor([error_part + penalty_part]))


def test_both_parameters_start_at_the_same_thresholds_and_are_saved_alike():
    plain, log = (JumpReLUSAE(D, F, sparsity_coefficient=0.1, threshold_parameter=name) for name in ("plain", "log"))
    assert_close(log.inference_threshold, plain.threshold)
    assert set(dict(log.named_parameters())) ^ set(dict(plain.named_parameters())) == {"threshold", "log_threshold"}
    assert repr(log) == repr(plain)
    x_BD = torch.randn(50, D)
    assert torch.equal(log.for_inference()(x_BD), log(x_BD))
    for sae in (plain, log):
        saved = sae.for_inference()
        assert torch.equal(saved.threshold, sae.inference_threshold)
    absolute = JumpReLUSAE(D, F, sparsity_coefficient=0.1, threshold_parameter="log", absolute_threshold=1)
    assert torch.equal(absolute.inference_threshold, torch.ones(F))


def test_the_coefficient_of_a_target_is_that_of_the_penalty_window():
    """The slope of error and penalty along a factor on all thresholds is 0 at the first batch's coefficient."""
    sae = perturbed(JumpReLUSAE(D, F, target_l0=1, bandwidth=0.3, **PUBLISHED), torch.float64)
    x_BD = torch.randn(64, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sae.start_at_target(sae.product(sae.encoder_input(x_BD)).to_dense())
    with torch.no_grad():
        sae.log_threshold -= 1e-5  # so that no entry is just at its threshold
    sae.start_at_target = lambda pre_RF: None
    sae.training_step(x_BD, torch.zeros(F).bool())
    _, error_rise, l0_fall, penalty_fall = derivatives_by_threshold_factor(sae, x_BD)
    assert error_rise > 0
    assert 0 < penalty_fall < 0.8 * l0_fall
    assert_close(sae.sparsity_coefficient, error_rise / penalty_fall, rtol=1e-6, atol=0)
    assert (sae.log_threshold.grad * sae.inference_threshold).sum().item() == pytest.approx(0, abs=1e-9)
    before_F = sae.inference_threshold.clone()
    sae.after_update()
    assert_close(sae.inference_threshold, before_F * sae.l0_target.compute_factor())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty_window": "lower"}, "penalty_window=lower: must be both or upper. Fix: penalty_window=both"),
        ({"threshold_parameter": 3}, "threshold_parameter=3: must be plain or log"),
        ({"absolute_threshold": 0}, "absolute_threshold=0: must be greater than 0"),
        ({"absolute_threshold": "one"}, "absolute_threshold='one': must be a number"),
        (
            {"absolute_threshold": 1, "initial_threshold": 2},
            "absolute_threshold=1: cannot be combined with initial_threshold=2",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        JumpReLUSAE(D, F, 3, **options)
    assert str(error.value).startswith(message)
