"""SAEs at an L0 of k, compared with the definition written out on dense matrices."""

# A activations, D width, F latents

import pytest
import torch

from sae_sweeps.evaluation import equal_l0
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.evaluation.metrics import remark_on_sparsity
from sae_sweeps.evaluation.ratios import explain_missing
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes import SAE, TRAINABLE, InferenceSAE
from tests.reference import nmse, top_mask

D, F, A = 24, 192, 1200
MOVED = [name for name in TRAINABLE if name != "topk"]


def some_activations(count: int = A, seed: int = 0) -> torch.Tensor:
    """Activations whose number of active latents differs from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    x_AD = torch.randn(count, D, generator=generator)
    return x_AD * (0.5 + torch.rand(count, 1, generator=generator)) + 0.3


def make_sae(name: str, l0: int = 12, normalize_input: bool = False, dict_size: int = F) -> InferenceSAE:
    """An SAE with an L0 of about `l0`, with thresholds or biases that differ from latent to latent."""
    generator = torch.Generator().manual_seed(1)
    some_F = 0.8 + 0.4 * torch.rand(dict_size, generator=generator)
    sae = TRAINABLE[name](D, dict_size, l0, normalize_input=normalize_input)
    share = torch.tensor(1 - l0 / dict_size)
    size_F = sae.W_enc.detach().norm(dim=1) * torch.special.ndtri(share)
    with torch.no_grad():
        if name in ("batchtopk", "matryoshka"):
            sae.threshold.copy_(size_F.mean())
        elif name == "jumprelu":
            sae.threshold.copy_(size_F * some_F)
        elif name in ("relu", "gated"):
            sae.b_enc.copy_(-size_F * some_F)
        if name == "gated":
            sae.r_mag.copy_(some_F - 1)
            sae.b_mag.copy_(-0.5 * size_F * some_F)
    return sae.for_inference()


def pre_activations(sae: InferenceSAE, x_AD: torch.Tensor) -> torch.Tensor:
    return sae.product(sae.encoder_input(sae.normalize(x_AD).x_BD)).to_dense()


def move(sae: InferenceSAE, level: float) -> InferenceSAE:
    """The SAE with all thresholds multiplied by a factor, or all biases shifted by multiples of the rows' norms."""
    weights = {name: getattr(sae, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "gain", "shift")}
    if sae.architecture in ("relu", "gated"):
        by_F = level * sae.W_enc.norm(dim=1)
        weights["b_enc"] = sae.b_enc - by_F
        if sae.gain is not None:  # the magnitudes stay where they are
            weights["shift"] = sae.shift + sae.gain * by_F
    else:
        weights["threshold"] = level * sae.threshold
    return InferenceSAE(sae.architecture, **weights, centers_input=sae.centers_input, normalization=sae.normalization)


def find_by_bisection(sae: InferenceSAE, x_AD: torch.Tensor, k: int) -> float:
    """The level at which L0 is k, found by trying SAEs with moved thresholds."""
    low, high = (-50.0, 50.0) if sae.architecture in ("relu", "gated") else (0.0, 50.0)
    for _ in range(40):
        middle = (low + high) / 2
        more = (move(sae, middle).encode(x_AD) != 0).sum().item() > k * len(x_AD)
        low, high = (middle, high) if more else (low, middle)
    return high


def mean_l0(sae: SAE, x_AD: torch.Tensor) -> float:
    return (sae.encode(x_AD) != 0).sum(1).double().mean().item()


@pytest.mark.parametrize("k", [5, 12, 40])
@pytest.mark.parametrize("normalize_input", [False, True])
@pytest.mark.parametrize("name", MOVED)
def test_each_half_is_measured_at_the_level_of_the_other(name, normalize_input, k):
    sae, x_AD = make_sae(name, normalize_input=normalize_input), some_activations()
    found = evaluate(sae, x_AD, k=k)
    halves = x_AD.split(A // 2)
    levels = [find_by_bisection(sae, half, k) for half in halves]
    moved = [move(sae, level) for level in levels]
    tests = list(zip(reversed(moved), halves, strict=True))
    assert found["nmse_at_k"] == pytest.approx(sum(nmse(one, half) for one, half in tests) / 2, rel=1e-4)
    assert found["l0_at_k"] == pytest.approx(sum(mean_l0(one, half) for one, half in tests) / 2, abs=2 / A)
    errors = [abs(mean_l0(one, half) - k) for one, half in tests]
    assert found["l0_at_k_error"] == pytest.approx(sum(errors) / 2, abs=2 / A)
    level = found["bias_shift" if name in ("relu", "gated") else "threshold_factor"]
    assert level == pytest.approx(sum(levels) / 2, rel=1e-4, abs=1e-4)
    assert abs(found["l0"] - 12) > 0.01  # the SAE as it is has another L0, and keeps its metrics
    expected = evaluate(sae, x_AD)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("k", [8, 32, 128])
@pytest.mark.parametrize("name", TRAINABLE)
def test_l0_is_k_on_text_that_was_not_used(name, k):
    found = evaluate(make_sae(name, k, dict_size=8 * k), some_activations(4000), k=k)
    assert abs(found["l0_at_k"] - k) <= 0.005 * k
    assert remark_on_sparsity(found, k) is None


def test_a_known_factor_and_a_known_shift():
    x_AD = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0], [3.0, 1.0, 4.0, 2.0], [2.0, 4.0, 1.0, 3.0]])
    eye, zero_4 = torch.eye(4), torch.zeros(4)
    weights = {"W_enc": eye, "W_dec": eye, "b_dec": zero_4, "centers_input": False}
    found = evaluate(InferenceSAE("jumprelu", **weights, threshold=zero_4 + 0.5), x_AD, k=2)
    assert (found["l0"], found["l0_at_k"], found["threshold_factor"]) == (4, 2, 4)  # above 4 * 0.5: 4 and 3
    assert found["nmse_at_k"] == pytest.approx((1 + 4) / 5)
    found = evaluate(InferenceSAE("relu", **weights, b_enc=zero_4, threshold=zero_4), x_AD, k=2)
    assert (found["l0_at_k"], found["bias_shift"]) == (2, 2)
    assert found["nmse_at_k"] == pytest.approx((4 + 4 + 4 + 1) / 5)  # all activations fall by 2
    gate = {"gain": zero_4 + 1, "shift": zero_4}
    found = evaluate(InferenceSAE("gated", **weights, b_enc=zero_4, threshold=zero_4, **gate), x_AD, k=2)
    assert (found["l0_at_k"], found["bias_shift"]) == (2, 2)
    assert found["nmse_at_k"] == pytest.approx((1 + 4) / 5)  # magnitudes stay


@pytest.mark.parametrize("batch_size", [100, 999, 5000])
@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_batches_use_their_largest_latents_as_in_training(name, batch_size):
    sae, x_AD = make_sae(name), some_activations()
    found = evaluate(sae, x_AD, k=10, batch_size=batch_size)
    pre_AF = pre_activations(sae, x_AD)
    order_A = torch.randperm(A, generator=torch.Generator().manual_seed(mix_seed(equal_l0.SEED, "batches")))
    z_AF = torch.zeros_like(pre_AF)
    for batch in order_A.split(batch_size):
        z_AF[batch] = pre_AF[batch].relu() * top_mask(pre_AF[batch], 10 * len(batch))
    error_A = (sae.decode(z_AF) - x_AD).square().sum(1)
    expected = (error_A / (x_AD - x_AD.mean(1, keepdim=True)).square().sum(1)).mean().item()
    assert found["nmse_batch"] == pytest.approx(expected, rel=1e-5)
    assert found["l0_batch"] == pytest.approx(10, abs=1e-9)
    assert "l0_batch" not in evaluate(make_sae("jumprelu"), x_AD, k=10)


def test_topk_is_at_k_by_construction_and_says_where_too_few_are_positive():
    sae, x_AD = make_sae("topk"), some_activations()
    found = evaluate(sae, x_AD)
    assert (found["nmse_at_k"], found["l0_at_k"]) == (found["nmse"], found["l0"]) == (found["nmse"], 12)
    assert "nmse_at_k" not in evaluate(sae, x_AD, k=13)
    for name in ("topk", "batchtopk"):
        few = TRAINABLE[name](D, F, 120)  # about half of 192 are positive
        getattr(few, "threshold", torch.zeros(())).fill_(0.1)
        found = evaluate(few, x_AD)
        assert found["l0_at_k"] < 100
        assert "not k = 120: too few latents have a positive pre-activation" in remark_on_sparsity(found, 120)


def test_no_factor_lowers_l0_if_too_many_thresholds_are_0():
    sae = make_sae("jumprelu")
    sae.threshold[:60] = 0
    found = evaluate(sae, some_activations(), k=5)
    missing = explain_missing(found)
    assert missing.keys() == {"nmse_at_k", "l0_at_k", "l0_at_k_error", "threshold_factor"}
    assert missing["nmse_at_k"].startswith("more than k latents have a threshold of 0")
    assert evaluate(sae, some_activations(), k=60)["l0_at_k"] == pytest.approx(60, rel=0.005)


@pytest.mark.parametrize("name", MOVED)
def test_a_sample_unlike_the_rest_changes_nothing(name, monkeypatch):
    sae, x_AD = make_sae(name), some_activations()
    expected = evaluate(sae, x_AD, k=12)
    monkeypatch.setattr(equal_l0, "MARGIN", 0.01)
    assert evaluate(sae, x_AD, k=12) == expected
    monkeypatch.setattr(equal_l0, "MARGIN", 1000.0)
    assert evaluate(sae, x_AD, k=12) == expected


@pytest.mark.parametrize("name", TRAINABLE)
def test_one_activation_and_k_of_every_latent(name):
    evaluate(make_sae(name), some_activations(1), k=3)
    found = evaluate(make_sae(name), some_activations(2), k=F)
    assert 0 < found.get("l0_at_k", 1) <= F
