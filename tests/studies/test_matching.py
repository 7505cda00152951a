"""Latents matched one to one: against all assignments, and a planted pair of SAEs."""

import itertools

import pytest
import torch
from torch.nn.functional import normalize

from sae_sweeps.studies import matching
from sae_sweeps.studies.matching import match, pair_one_to_one


def directions(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [(5, 5), (4, 6), (6, 4), (1, 3)])
def test_the_assignment_is_the_best_of_all(sizes):
    left, right = (directions(size, 4, seed) for seed, size in enumerate(sizes))
    cosine = (normalize(left, dim=1) @ normalize(right, dim=1).T).double()
    if sizes[0] > sizes[1]:
        cosine = cosine.T
    columns = range(cosine.shape[1])
    sums = [
        sum(cosine[row, column].item() for row, column in enumerate(chosen))
        for chosen in itertools.permutations(columns, len(cosine))
    ]
    found = pair_one_to_one(left, right)
    assert len(found) == min(sizes)
    assert found.sum().item() == pytest.approx(max(sums), abs=1e-6)


def test_planted_latents_are_found_again():
    """Half of the right latents are left ones, in another order and of another norm; the others are new axes."""
    width, known = 40, 8
    axes = torch.eye(width)
    left = axes[: 2 * known]
    order = torch.randperm(known, generator=torch.Generator().manual_seed(1))
    right = torch.cat([3 * axes[:known][order], axes[30:38]])
    row = match(left, right).summarise(0.7)
    assert row["paired_mean"] == row["right_nearest_mean"] == row["left_nearest_mean"] == 0.5
    assert row["paired_share"] == row["right_share"] == row["left_share"] == 0.5
    assert 0 < row["paired_mean_random"] < 0.5
    found = match(left, right)
    assert torch.equal(found.right.index[:known], order)


def test_one_latent_that_split_is_one_pair_but_twice_nearest():
    axes = torch.eye(12)
    row = match(axes[:3], axes[[0, 0, 4]]).summarise(0.7)
    assert row["right_share"] == pytest.approx(2 / 3)
    assert row["paired_share"] == row["left_share"] == pytest.approx(1 / 3)


def test_random_directions_match_as_the_control_does():
    left, right = directions(60, 24, 1), directions(50, 24, 2)
    row = match(left, right).summarise(0.7)
    assert row["paired_mean"] == pytest.approx(row["paired_mean_random"], abs=0.03)


def test_too_many_latents_for_memory_have_no_pairs(monkeypatch):
    monkeypatch.setattr(matching, "MOST_PAIRS", 19)
    row = match(directions(4, 8), directions(5, 8, 1)).summarise(0.7)
    assert row["paired_mean"] is row["paired_mean_random"] is row["paired_share"] is None
    assert row["right_nearest_mean"] is not None
