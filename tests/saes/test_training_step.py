"""The training step on kept entries against the dense definition, in float64 and float32."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes import (
    TRAINABLE,
    BatchTopKSAE,
    GatedSAE,
    JumpReLUSAE,
    MatryoshkaSAE,
    ReLUSAE,
    TopKSAE,
    encoder,
    sparse,
)
from sae_sweeps.saes.sparse import Dense
from tests.reference import dense_step, derivatives_by_threshold_factor

D, F = 12, 37
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]
PUBLISHED = {"penalty_window": "upper", "threshold_parameter": "log"}
SAES = {
    "topk": lambda k, d: TopKSAE(d, F, k, aux_latents=5),
    "batchtopk": lambda k, d: BatchTopKSAE(d, F, k, aux_latents=5),
    "matryoshka": lambda k, d: MatryoshkaSAE(d, F, k, aux_latents=5, prefixes=[0.1, 0.5, 0.6, 1.0]),
    "relu": lambda k, d: ReLUSAE(d, F, sparsity_coefficient=0.01 * k, initial_threshold=0.5),
    "gated": lambda k, d: GatedSAE(d, F, sparsity_coefficient=0.01 * k, initial_threshold=0.5),
    # a wide kernel, so that many entries lie in it
    "jumprelu": lambda k, d: JumpReLUSAE(d, F, sparsity_coefficient=0.01 * k, bandwidth=0.3, initial_threshold=0.5),
    "jumprelu to an l0": lambda k, d: JumpReLUSAE(d, F, k, bandwidth=0.3),
    "jumprelu as published": lambda k, d: JumpReLUSAE(
        d, F, sparsity_coefficient=0.01 * k, bandwidth=0.3, absolute_threshold=0.4, **PUBLISHED
    ),
}


def perturbed(sae, dtype):
    """Move parameters away from their initial values, so that no term vanishes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name != "threshold":
                parameter += 0.1 * torch.randn_like(parameter)
            else:
                parameter *= 0.5 + torch.rand_like(parameter)
        sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return sae.to(dtype)


def start_at_target_off_the_entries(sae, x_BD):
    """Meet the L0 target ahead of the first step, with no entry exactly at its threshold.

    `start_at_target` puts the level at an entry; a product rounded otherwise may see it on the other side.
    """
    sae.start_at_target(sae.product(sae.encoder_input(x_BD)).to_dense())
    with torch.no_grad():
        sae.threshold *= 1 - 1e-5
    sae.start_at_target = lambda pre_RF: None


def assert_is_the_definition(sae, step, x_BD, dead_F):
    loss, gradients = dense_step(sae, x_BD, dead_F)
    rtol, atol = (1e-10, 1e-13) if x_BD.dtype == torch.float64 else (1e-5, 1e-6)
    assert_close(step.loss, loss, rtol=rtol, atol=atol)
    for name, parameter in sae.named_parameters():
        assert_close(
            parameter.grad, gradients[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dead", ["none", "some", "all"])
@pytest.mark.parametrize(("batch", "k"), [(1, 1), (1, 3), (17, 4), (64, 5), (5, F)])
@pytest.mark.parametrize("architecture", SAES)
def test_loss_and_gradients_equal_the_dense_definition(architecture, batch, k, dead, dtype, device):
    sae = perturbed(SAES[architecture](k, D), dtype).to(device)
    torch.manual_seed(2)
    x_BD = torch.randn(batch, D, dtype=dtype).to(device)
    dead_F = {"none": torch.zeros(F), "some": (torch.arange(F) % 3 == 0), "all": torch.ones(F)}[dead].bool().to(device)
    if architecture == "jumprelu to an l0":
        start_at_target_off_the_entries(sae, x_BD)

    step = sae.training_step(x_BD, dead_F)

    assert_is_the_definition(sae, step, x_BD, dead_F)


@pytest.mark.parametrize("dense_from", [0.0, 2.0])
def test_the_coefficient_of_a_target_makes_the_slope_along_a_threshold_factor_0(dense_from, monkeypatch):
    monkeypatch.setitem(sparse.DENSE_FROM, "cpu", dense_from)
    sae, none_F = perturbed(JumpReLUSAE(D, F, target_l0=1, bandwidth=0.3), torch.float64), torch.zeros(F).bool()
    error_rises, l0_falls = [], []
    for batch in range(3):
        x_BD = torch.randn(64, D, dtype=torch.float64, generator=torch.Generator().manual_seed(batch))
        step = sae.training_step(x_BD, none_F)
        l0, error_rise, l0_fall, _ = derivatives_by_threshold_factor(sae, x_BD)
        error_rises.append(error_rise)
        l0_falls.append(l0_fall)
        assert_close(step.l0.double(), l0)
        mean = [sum(0.95 ** (batch - i) * of[i] for i in range(batch + 1)) for of in (error_rises, l0_falls)]
        assert mean[0] > 0
        assert_close(sae.sparsity_coefficient, mean[0] / mean[1], rtol=1e-10, atol=0)
        if batch == 0:
            assert l0 == pytest.approx(1, abs=1 / 64)
            assert (sae.threshold.grad * sae.threshold).sum().item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("dense_from", [0.0, 2.0])
@pytest.mark.parametrize("architecture", SAES)
def test_sparse_and_dense_entries_give_the_same_step(architecture, dense_from, monkeypatch):
    monkeypatch.setitem(sparse.DENSE_FROM, "cpu", dense_from)
    sae = perturbed(SAES[architecture](4, D), torch.float64)
    x_BD, dead_F = torch.randn(17, D, dtype=torch.float64), torch.arange(F) % 3 == 0
    ways = set()
    monkeypatch.setattr(Dense, "to_columns", lambda self: ways.add("dense") or self)
    if architecture == "jumprelu to an l0":
        start_at_target_off_the_entries(sae, x_BD)
    step = sae.training_step(x_BD, dead_F)
    assert ways == ({"dense"} if dense_from == 0 else set())
    assert_is_the_definition(sae, step, x_BD, dead_F)


@pytest.mark.parametrize("architecture", ["relu", "gated"])
def test_a_target_takes_the_coefficient_from_the_batch_and_shifts_all_biases(architecture, monkeypatch):
    """The first batch's coefficient: that at which a shift of all biases would change error and penalty oppositely."""
    start = perturbed(SAES[architecture](4, D), torch.float64)
    with torch.no_grad():  # too weak as it is, so that being less active raises the error
        start.W_enc *= 0.1
        start.b_enc *= 0.1
    x_BD, dead_F = torch.randn(17, D, dtype=torch.float64), torch.zeros(F, dtype=torch.bool)
    sae = TRAINABLE[architecture](D, F, target_l0=6.0).double()
    sae.load_state_dict(start.state_dict(), strict=False)

    def loss_after_shift(by, coefficient):
        start._sparsity_coefficient = coefficient
        with torch.no_grad():
            start.b_enc.copy_(sae.b_enc - by * sae.W_enc.norm(dim=1))
        return start.training_step(x_BD, dead_F).loss

    def pre_BF():
        return ((x_BD - sae.b_dec) @ sae.W_enc.T + sae.b_enc).detach()

    sae.start_at_target(pre_BF())
    times = {"relu": 4, "gated": 1}[architecture]
    assert (pre_BF() > 0).sum() == pytest.approx(times * 6 * 17, abs=1)  # one entry is just at the level
    sae._shift_biases(1e-4)  # and not there, where there is no derivative
    monkeypatch.setattr(sae, "start_at_target", lambda pre_RF: None)
    step = sae.training_step(x_BD, dead_F)
    small = 1e-6
    rises = [(loss_after_shift(2 * small, c) - loss_after_shift(small, c)) / small for c in (0.0, 1.0)]
    coefficient = sae.l0_target.coefficient.item()
    assert coefficient == pytest.approx((rises[0] / (rises[0] - rises[1])).item(), rel=1e-3)
    left = min(1, 1 - 5 * (1 - step.l0.item() / 6))
    assert sae.sparsity_coefficient.item() == pytest.approx(coefficient * left, rel=1e-5)
    unit = (pre_BF() / sae.W_enc.norm(dim=1))[pre_BF() > 0].mean()
    before_F = sae.b_enc.detach().clone()
    sae.after_update()
    expected = 3 * (0.2 * (step.l0 - 6) / step.l0.clamp(min=0.6)).clamp(-0.05, 0.05)
    assert expected != 0
    assert_close(before_F - sae.b_enc, expected * unit * sae.W_enc.norm(dim=1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("architecture", SAES)
def test_the_size_of_the_blocks_changes_nothing(architecture, rows, monkeypatch):
    monkeypatch.setattr(encoder, "BLOCK", rows * F)
    sae = perturbed(SAES[architecture](2, D), torch.float64)
    dead_F = torch.arange(F) % 3 == 0
    for step in range(2):  # the second time BatchTopK has a threshold to guess from
        x_BD = torch.randn(17, D, dtype=torch.float64)
        if architecture == "jumprelu to an l0" and step == 0:
            start_at_target_off_the_entries(sae, x_BD)
        assert_is_the_definition(sae, sae.training_step(x_BD, dead_F), x_BD, dead_F)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_bfloat16_proposes_and_float32_decides(architecture, dead, precision, device):
    """The lower precision only chooses the latents: the result is the float32 step."""
    torch.manual_seed(3)
    sae = TRAINABLE[architecture](64, 512, 16, aux_latents=20).to(device)
    x_BD = torch.randn(100, 64).to(device)
    dead_F = (torch.full((512,), dead) & (torch.arange(512) % 3 == 0)).to(device)
    for _ in range(2):
        step = sae.training_step(x_BD, dead_F, precision)
        assert_is_the_definition(sae, step, x_BD, dead_F)


@pytest.mark.parametrize(("threshold", "scale"), [(2.0, 1.0), (2.0, 30.0), (0.05, 1.0)])
def test_bfloat16_proposes_and_float32_decides_for_jumprelu(threshold, scale, monkeypatch):
    """Also for large activations, and for thresholds so small that rounding moves a product across them."""
    monkeypatch.setitem(sparse.DENSE_FROM, "cpu", 1.0)
    torch.manual_seed(3)
    sae = JumpReLUSAE(64, 512, sparsity_coefficient=0.01, bandwidth=0.05, initial_threshold=threshold)
    with torch.no_grad():
        sae.threshold *= scale
    x_BD = scale * torch.randn(100, 64)
    step = sae.training_step(x_BD, torch.zeros(512, dtype=torch.bool), "bfloat16")
    assert 0.01 < step.l0 / 512 < 0.6
    assert_is_the_definition(sae, step, x_BD, torch.zeros(512, dtype=torch.bool))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("architecture", SAES)
def test_a_batch_without_active_latents_has_finite_gradients(architecture, device):
    sae = SAES[architecture](3, D).to(device)
    with torch.no_grad():
        sae.W_enc.zero_()
    x_BD = torch.randn(4, D).to(device)
    step = sae.training_step(x_BD, torch.zeros(F, dtype=torch.bool, device=device))
    assert step.l0 == 0
    assert not step.fired_F.any()
    assert_close(step.mse, x_BD.square().mean())
    assert all(torch.isfinite(parameter.grad).all() for parameter in sae.parameters())


@pytest.mark.parametrize("architecture", SAES)
def test_fired_and_l0_count_what_is_active(architecture):
    sae = SAES[architecture](3, D)
    x_BD = torch.randn(9, D)
    step = sae.training_step(x_BD, torch.zeros(F, dtype=torch.bool))
    active_BF = sae.keep(sae.product(sae.encoder_input(x_BD))).to_dense() > 0
    assert_close(step.l0, active_BF.sum() / 9)
    assert_close(step.fired_F, active_BF.any(0))


def test_one_prefix_of_all_latents_is_batchtopk():
    x_BD, dead_F = torch.randn(17, D), torch.arange(F) % 3 == 0
    nested, plain = MatryoshkaSAE(D, F, 4, prefixes=[1.0], aux_coefficient=1 / 32), BatchTopKSAE(D, F, 4)
    assert_close(nested.training_step(x_BD, dead_F).loss, plain.training_step(x_BD, dead_F).loss)
    for name, parameter in plain.named_parameters():
        assert_close(nested.get_parameter(name).grad, parameter.grad)


def test_the_prefixes_of_a_dictionary():
    sae = MatryoshkaSAE(D, 10, 3, prefixes=[0.1, 0.34, 1.0])
    assert sae.sizes == [1, 3, 10]
    assert sae.group_F.tolist() == [0, 1, 1, 2, 2, 2, 2, 2, 2, 2]
