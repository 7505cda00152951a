"""Whatever the precision of the encoder's product, the selected entries are those of exact pre-activations."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.config import TrainingConfig
from sae_sweeps.saes import (
    BatchTopKSAE,
    GatedSAE,
    JumpReLUSAE,
    MatryoshkaSAE,
    ReLUSAE,
    TopKSAE,
    encoder,
    selection,
    sparse,
)
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.selection import RowTopK, keep_above, keep_top_of_batch, keep_top_per_row
from sae_sweeps.training.trainer import Trainer

B, F = 64, 515
PRECISIONS = ["float32", "tf32", "bfloat16"]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


def gaussian(d):
    return torch.randn(B, d), torch.randn(F, d) / d**0.5


def structured(d):
    directions_FD = torch.nn.functional.normalize(torch.randn(F, d), dim=1)
    return (torch.randn(B, F) - 2).relu() @ directions_FD, directions_FD


def massive_coordinates(d):
    """Three coordinates of 100 times the norm of all others, as at the first token of a language model."""
    x_BD, W_FD = gaussian(d)
    x_BD[:, :3] = 100 * d**0.5 * torch.randn(B, 3)
    return x_BD, W_FD


def parallel(d):
    """Each activation is a multiple of a latent: the largest pre-activations have the largest rounding errors."""
    _, W_FD = gaussian(d)
    return 10 * W_FD[:B] * torch.rand(B, 1), W_FD


def ties(d):
    """Whole numbers, whose products are equal for many latents, and latents that are there twice."""
    x_BD, W_FD = torch.randint(-1, 2, (B, d)).float(), torch.randint(-1, 2, (F, d)).float()
    W_FD[F // 2 : 2 * (F // 2)] = W_FD[: F // 2]
    return x_BD, W_FD


def denormal(d):
    x_BD, W_FD = gaussian(d)
    return x_BD * 1e-38, W_FD


def empty_rows(d):
    x_BD, W_FD = gaussian(d)
    x_BD[::3] = 0
    return x_BD, W_FD


def unequal_norms(d):
    x_BD, W_FD = gaussian(d)
    return x_BD * torch.logspace(-3, 3, B)[:, None], W_FD * torch.logspace(3, -3, F)[:, None]


INPUTS = [gaussian, structured, massive_coordinates, parallel, ties, denormal, empty_rows, unequal_norms]


def all_exact(x_BD, W_FD, b_F):
    """Return every pre-activation, each computed as `Product.compute` computes one."""
    flat_N = torch.arange(len(x_BD) * len(W_FD), device=x_BD.device)
    return Product(x_BD, W_FD, b_F).compute(flat_N // len(W_FD), flat_N % len(W_FD)).pre.view(len(x_BD), -1)


def keep_first_largest(pre_N, k):
    """Return a mask of the k largest values, the first ones of equal values."""
    order_N = pre_N.sort(descending=True, stable=True).indices[:k]
    return torch.zeros_like(pre_N, dtype=torch.bool).index_fill_(0, order_N, True)


def assert_same_matrix(kept, expected_BF):
    assert torch.equal(kept.to_dense(), expected_BF)


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def has_bias(request):
    return request.param


@pytest.fixture(params=INPUTS, ids=lambda make: make.__name__)
def problem(request, has_bias):
    """Return activations (B, D), an encoder (F, D), its bias or None, and the exact pre-activations (B, F)."""
    torch.manual_seed(0)
    x_BD, W_FD = request.param(96)
    b_F = 0.5 * torch.randn(F) * (x_BD @ W_FD.T).std() if has_bias else None
    return x_BD, W_FD, b_F, all_exact(x_BD, W_FD, b_F)


@pytest.mark.parametrize("precision", PRECISIONS)
class TestSelectionsAreExact:
    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch):
        monkeypatch.setattr(encoder, "BLOCK", 30 * F)

    def test_bounds_lie_above(self, problem, precision):
        x_BD, W_FD, b_F, pre_BF = problem
        product = Product(x_BD, W_FD, b_F, precision=precision)
        for first, upper_FR in product.blocks():
            upper_RF = upper_FR.T
            exact_RF = pre_BF[first : first + len(upper_RF)]
            assert (upper_RF >= product.lower(exact_RF)).all()
            error_R1 = product.error_B[first : first + len(upper_RF), None]
            assert (upper_RF - exact_RF <= error_R1 + 2.0**-8 * upper_RF.abs() + 1e-30).all()

    @pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
    def test_above_thresholds(self, problem, precision, share):
        x_BD, W_FD, b_F, pre_BF = problem
        floor_F = pre_BF.quantile(share, dim=0) * (1 + 0.1 * torch.randn(F))
        kept = keep_above(Product(x_BD, W_FD, b_F, precision=precision), floor_F)
        assert_same_matrix(kept, torch.where((pre_BF > floor_F) & (pre_BF > 0), pre_BF, 0.0))

    @pytest.mark.parametrize("k", [1, 8, 100, F])
    def test_largest_of_each_row(self, problem, precision, k):
        x_BD, W_FD, b_F, pre_BF = problem
        kept = keep_top_per_row(Product(x_BD, W_FD, b_F, precision=precision), k)
        expected_BF = torch.stack([keep_first_largest(pre_F, k) * pre_F.relu() for pre_F in pre_BF])
        assert_same_matrix(kept, expected_BF)
        assert kept.crow_Bp1.diff().eq(k).all()

    @pytest.mark.parametrize("k", [1, 8, 100])
    def test_largest_of_some_latents(self, problem, precision, k):
        x_BD, W_FD, b_F, pre_BF = problem
        latents_M = torch.arange(0, F, 3)
        product = Product(x_BD, W_FD, b_F, precision=precision)
        top = RowTopK(product, k, latents_M)
        for _ in product.blocks():
            pass
        expected_BM = torch.stack([keep_first_largest(pre_M, k) * pre_M.relu() for pre_M in pre_BF[:, latents_M]])
        assert_same_matrix(top.collect(), expected_BM)

    @pytest.mark.parametrize("guess", [0.0, 0.97, 1.1])
    @pytest.mark.parametrize("k", [1, 8, 400])
    def test_largest_of_the_batch(self, problem, precision, k, guess):
        x_BD, W_FD, b_F, pre_BF = problem
        least = pre_BF.flatten().topk(k * B).values.min().clamp(min=0).item()
        kept = keep_top_of_batch(Product(x_BD, W_FD, b_F, precision=precision), k, guess * torch.tensor(least))
        largest_BF = keep_first_largest(pre_BF.flatten(), k * B).view(B, F)
        assert_same_matrix(kept, largest_BF * pre_BF.relu())


@pytest.mark.parametrize("d", [64, 768, 2304])
def test_an_error_of_the_usual_size_would_lose_entries(d):
    """The bound is needed: sixty-fourths of |x| |w| / sqrt(d) are several times the usual error, but not a bound."""
    torch.manual_seed(0)
    x_BD, W_FD = massive_coordinates(d)
    pre_BF = all_exact(x_BD, W_FD, None)
    rounded_BF = (x_BD.bfloat16() @ W_FD.bfloat16().T).float()
    usual_BF = 2.0**-6 * x_BD.norm(dim=1)[:, None] * W_FD.norm(dim=1) / d**0.5
    floor_BF = pre_BF - pre_BF.abs() * 1e-6
    assert (rounded_BF < floor_BF - usual_BF).any()


@pytest.mark.parametrize("make", [gaussian, structured])
@pytest.mark.parametrize("keep", [keep_top_of_batch, keep_top_per_row])
def test_few_candidates_are_computed(make, keep, monkeypatch):
    computed = []
    compute = selection._compute
    monkeypatch.setattr(selection, "_compute", lambda *args: computed.append(compute(*args)) or computed[-1])
    torch.manual_seed(0)
    monkeypatch.setattr("tests.saes.test_certificate.F", 6144)
    x_BD, W_FD = make(768)
    kept = keep(Product(x_BD, W_FD, precision="bfloat16"), 32)
    if keep is keep_top_of_batch:  # with a guess, as in training
        computed.clear()
        keep(Product(x_BD, W_FD, precision="bfloat16"), 32, 0.98 * kept.value.min())
    assert sum(len(entries.pre) for entries in computed) <= 1.7 * len(kept.pre)


D = 24
SAES = {
    "topk": lambda: TopKSAE(D, 200, 5, aux_latents=8),
    "batchtopk": lambda: BatchTopKSAE(D, 200, 5, aux_latents=8),
    "matryoshka": lambda: MatryoshkaSAE(D, 200, 5, aux_latents=8, prefixes=[0.25, 1.0]),
    "relu": lambda: ReLUSAE(D, 200, sparsity_coefficient=0.01, initial_threshold=1.0),
    "gated": lambda: GatedSAE(D, 200, target_l0=5),
    "jumprelu": lambda: JumpReLUSAE(D, 200, sparsity_coefficient=0.001, bandwidth=0.2, initial_threshold=1.5),
    "jumprelu to an l0": lambda: JumpReLUSAE(D, 200, target_l0=5, bandwidth=0.2),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("searched", [0.0, 1.0], ids=["dead densely", "dead by candidates"])
@pytest.mark.parametrize("architecture", SAES)
def test_every_precision_trains_the_same_sae(architecture, searched, device, monkeypatch):
    """To the byte, with dead latents, while the matrix is dense as well as when it is sparse."""
    monkeypatch.setattr("sae_sweeps.saes.topk.SEARCHED", searched)
    monkeypatch.setitem(sparse.DENSE_FROM, device, 0.1)
    states = {}
    for precision in PRECISIONS:
        config = TrainingConfig(
            tokens=12 * 128, batch_size=128, lr=1e-2, dead_after_tokens=256, precision=precision, initial_bias="zero"
        )
        trainer = Trainer(SAES[architecture]().to(device), config)
        for seed in range(config.steps):
            trainer.step(torch.randn(128, D, generator=torch.Generator().manual_seed(seed)).to(device))
        states[precision] = trainer.state()
    for precision in ("tf32", "bfloat16"):
        for name, tensor in states["float32"].items():
            assert_close(states[precision][name], tensor, rtol=0, atol=0, msg=f"{name} in {precision}")


def test_numbers_that_are_none_do_not_look_like_a_result():
    x_BD, W_FD = gaussian(16)
    x_BD[3] = torch.nan
    for precision in PRECISIONS:
        kept = keep_top_per_row(Product(x_BD, W_FD, precision=precision), 4)
        assert kept.value.view(B, 4)[3].isnan().all()
