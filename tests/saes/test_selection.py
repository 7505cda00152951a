"""Which latents each architecture keeps, on matrices small enough to see."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes import BatchTopKSAE, JumpReLUSAE, TopKSAE, encoder, selection, topk
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.selection import keep_top_of_batch, keep_top_per_row

PRE_BF = torch.tensor([[5.0, 4.0, 3.0, 0.0], [2.0, 1.0, 0.0, 0.0]])


def product(pre_BF):
    """Return a product that equals `pre_BF`."""
    return Product(pre_BF, torch.eye(pre_BF.shape[1], dtype=pre_BF.dtype))


def test_topk_keeps_k_in_every_row():
    assert_close(keep_top_per_row(product(PRE_BF), 1).to_dense(), torch.tensor([[5.0, 0, 0, 0], [2.0, 0, 0, 0]]))


def test_batchtopk_shares_its_budget_across_the_batch():
    assert_close(keep_top_of_batch(product(PRE_BF), 1).to_dense(), torch.tensor([[5.0, 4.0, 0, 0], [0.0, 0, 0, 0]]))


def test_a_k_above_the_dictionary_size_keeps_all():
    assert_close(keep_top_per_row(product(PRE_BF), 9).to_dense(), PRE_BF)
    assert_close(keep_top_of_batch(product(PRE_BF), 9).to_dense(), PRE_BF)


def test_ties_keep_exactly_the_budget():
    ties_BF = torch.ones(3, 5)
    assert (keep_top_of_batch(product(ties_BF), 2).to_dense() > 0).sum() == 6
    assert ((keep_top_per_row(product(ties_BF), 2).to_dense() > 0).sum(1) == 2).all()


def test_the_threshold_is_the_running_mean_of_the_smallest_kept_activation():
    sae = BatchTopKSAE(4, 4, k=1, threshold_momentum=0.5)
    sae.update_statistics(sae.keep(product(PRE_BF)))  # smallest kept: 4
    assert_close(sae.threshold, torch.tensor(4.0))
    sae.update_statistics(
        sae.keep(product(torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])))
    )  # smallest kept: 1
    # weights 0.25 and 0.5 of the two batches, normalised
    assert_close(sae.threshold, torch.tensor((0.25 * 4 + 0.5 * 1) / 0.75))


def test_batchtopk_uses_its_threshold_at_inference():
    sae = BatchTopKSAE(4, 4, k=1)
    sae.threshold.fill_(2.5)
    assert_close(
        sae.keep_for_inference(product(PRE_BF)).to_dense(), torch.tensor([[5.0, 4.0, 3.0, 0.0], [0.0, 0, 0, 0]])
    )


def test_topk_zeros_do_not_count_as_active():
    sae = TopKSAE(4, 4, k=3)
    kept = sae.keep_for_inference(product(PRE_BF))
    assert (kept.value > 0).sum() == 5


def test_jumprelu_keeps_entries_above_their_own_threshold():
    sae = JumpReLUSAE(4, 4, sparsity_coefficient=0.1)
    with torch.no_grad():
        sae.threshold.copy_(torch.tensor([3.0, 0.5, 3.0, 0.5]))
    assert_close(sae.keep_for_inference(product(PRE_BF)).to_dense(), torch.tensor([[5.0, 4.0, 0, 0], [0.0, 1.0, 0, 0]]))


def test_encode_and_forward_agree():
    torch.manual_seed(0)
    x_BD = 3 * torch.randn(6, 8) + 2
    for sae in (TopKSAE(8, 20, 3), BatchTopKSAE(8, 20, 3), JumpReLUSAE(8, 20, sparsity_coefficient=0.1)):
        normalized = sae.normalize(x_BD)
        by_hand = normalized.restore(sae.encode(x_BD) @ sae.W_dec + sae.b_dec)
        assert_close(sae(x_BD), by_hand)


def test_normalisation_removes_mean_and_scale():
    sae = TopKSAE(8, 20, 3)
    x_BD = torch.randn(5, 8)
    assert_close(sae.normalize(x_BD).x_BD, sae.normalize(7 * x_BD + 3).x_BD, rtol=1e-4, atol=1e-4)
    assert_close(sae.normalize(x_BD).restore(sae.normalize(x_BD).x_BD), x_BD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 4, 13])
@pytest.mark.parametrize("guess", [0.0, 0.9, 1.7, 3.5, 100.0])
def test_neither_the_guess_nor_the_block_size_changes_the_kept_entries(guess, rows, monkeypatch):
    monkeypatch.setattr(encoder, "BLOCK", rows * 29)
    torch.manual_seed(0)
    pre_BF = torch.randn(13, 29)
    largest = pre_BF.flatten().topk(3 * 13).values.min()
    expected_BF = torch.where(pre_BF >= largest, pre_BF, 0.0)
    assert torch.equal(keep_top_of_batch(product(pre_BF), 3, torch.tensor(guess)).to_dense(), expected_BF)


def test_cutting_many_candidates_loses_none_of_the_largest(monkeypatch):
    """Without a guess half of all entries are candidates, and the largest may come last."""
    monkeypatch.setattr(encoder, "BLOCK", 50)
    pre_BF = torch.rand(64, 50).sort(dim=0).values + torch.linspace(0, 1, 64)[:, None]
    kept_BF = keep_top_of_batch(product(pre_BF), 2).to_dense()
    assert torch.equal(kept_BF, torch.where(pre_BF >= pre_BF.flatten().topk(128).values.min(), pre_BF, 0.0))


def test_jumprelu_keeps_entries_near_the_threshold_with_activation_0():
    sae = JumpReLUSAE(4, 4, sparsity_coefficient=0.1, bandwidth=0.2)
    with torch.no_grad():
        sae.threshold.fill_(1.0)
    kept = sae.keep(product(torch.tensor([[1.05, 0.95, 0.8, 0.0], [0.0, 0.0, 3.0, 0.0]] + [[0.0] * 4] * 6)))
    assert_close(kept.pre, torch.tensor([1.05, 0.95, 3.0]))
    assert_close(kept.value, torch.tensor([1.05, 0.0, 3.0]))


@pytest.mark.parametrize("architecture", [TopKSAE, JumpReLUSAE])
def test_centering_starts_at_the_mean_and_encodes_deviations(architecture):
    torch.manual_seed(0)
    last = {"sparsity_coefficient": 0.1} if architecture is JumpReLUSAE else {"k": 3}
    sae, plain = architecture(8, 20, **last), architecture(8, 20, **last)
    mean_D, x_BD = torch.randn(8), torch.randn(5, 8)
    sae.center(mean_D)
    assert_close(sae.b_dec.detach(), mean_D)
    shifted_BF = sae.product(sae.encoder_input(x_BD + mean_D)).to_dense()
    assert_close(shifted_BF, plain.product(plain.encoder_input(x_BD)).to_dense(), rtol=1e-4, atol=1e-5)


def test_after_its_first_batch_batchtopk_searches_each_batch_once(monkeypatch):
    """The guess follows the batches, even where the running mean, the threshold, lags far behind."""
    searches = []
    find = selection._find_candidates
    monkeypatch.setattr(selection, "_find_candidates", lambda *args: searches.append(args) or find(*args))
    torch.manual_seed(0)
    sae = BatchTopKSAE(32, 256, k=8)
    x_BD = torch.randn(512, 32)
    for step in range(30):
        sae.training_step(x_BD * 0.995**step, torch.zeros(256, dtype=torch.bool))
    assert len(searches) == 30
    assert sae.threshold > 1.02 * sae.keep(sae.product(sae.encoder_input(x_BD * 0.995**29))).value.min()


def test_dead_latents_are_collected_once_if_a_wrong_guess_makes_a_second_search(monkeypatch):
    monkeypatch.setattr(topk, "SEARCHED", 2.0)  # the dead latents are searched for during the search of the others
    torch.manual_seed(0)
    sae, x_BD, dead_F = BatchTopKSAE(16, 64, k=4, aux_latents=3), torch.randn(20, 16), torch.arange(64) % 2 == 0
    expected = sae.training_step(x_BD, dead_F)
    sae.smallest_kept.fill_(1e6)
    assert_close(sae.training_step(x_BD, dead_F).aux_loss, expected.aux_loss)
