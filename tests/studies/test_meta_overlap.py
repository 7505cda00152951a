"""Pairs of latents that share a meta-latent or a nearest latent: against all pairs, and a planted tree of splits."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies import meta_overlap
from sae_sweeps.studies.meta_overlap import compare_equally_many, count_pairs, draw_directions, find_nearest_other


def as_rows(uses: list[list[int]], meta_latents: int) -> RowSparse:
    """Return weights of 1 for the meta-latents that each latent uses."""
    row = torch.tensor([at for at, used in enumerate(uses) for _ in used], dtype=torch.int64)
    column = torch.tensor([meta for used in uses for meta in used], dtype=torch.int64)
    return RowSparse.from_sorted(row, column, torch.ones(len(row)), (len(uses), meta_latents))


def count_slowly(uses, nearest):
    found = {"sharing": 0, "near": 0, "both": 0}
    for first, second in itertools.combinations(range(len(uses)), 2):
        shares, is_near = bool({*uses[first]} & {*uses[second]}), nearest[first] == nearest[second]
        found["sharing"] += shares
        found["near"] += is_near
        found["both"] += shares and is_near
    return found


@pytest.mark.parametrize("at_once", [1, 40, 2**24])
def test_the_counts_are_those_of_all_pairs(monkeypatch, at_once):
    monkeypatch.setattr(meta_overlap, "PAIRS", at_once)
    generator = torch.Generator().manual_seed(0)
    uses = [torch.randperm(12, generator=generator)[: at % 4].tolist() for at in range(50)]
    nearest = torch.randint(0, 7, (50,), generator=generator)
    found = count_pairs(as_rows(uses, 12), nearest)
    expected = count_slowly(uses, nearest.tolist())
    assert {"sharing": found.sharing, "near": found.near, "both": found.both} == expected
    assert found.pairs == 50 * 49 // 2
    assert found.near_of_sharing == expected["both"] / expected["sharing"]
    assert found.sharing_of_near == expected["both"] / expected["near"]


def test_a_planted_split_is_recovered():
    """Six latents split from two of a smaller SAE; the meta-latents 0 and 1 are what each three have in common."""
    found = count_pairs(as_rows([[0, 2], [0, 3], [0, 4], [1, 5], [1, 6], [1, 7]], 8), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert (found.sharing, found.near, found.both) == (6, 6, 6)
    assert found.near_of_sharing == found.sharing_of_near == 1
    assert found.near_of_all == found.sharing_of_all == 6 / 15
    crossed = count_pairs(as_rows([[0], [1], [2], [0], [1], [2]], 3), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert crossed.both == 0


@pytest.mark.parametrize("sample", [1024, 30])
def test_near_latents_are_compared_at_an_equal_number_of_pairs(monkeypatch, sample):
    monkeypatch.setattr(meta_overlap, "SAMPLE", sample)
    generator = torch.Generator().manual_seed(3)
    directions, atoms = torch.randn(60, 8, generator=generator), torch.randn(20, 8, generator=generator)
    uses = [torch.randperm(15, generator=generator)[:2].tolist() for _ in range(60)]
    threshold, found = compare_equally_many(as_rows(uses, 15), directions, atoms)
    near = torch.nn.functional.cosine_similarity(directions[:, None], atoms[None], dim=2) >= threshold
    expected = {"sharing": 0, "near": 0, "both": 0}
    for first, second in itertools.combinations(range(60), 2):
        shares, is_near = bool({*uses[first]} & {*uses[second]}), bool((near[first] & near[second]).any())
        expected = {
            name: expected[name] + value
            for name, value in (("sharing", shares), ("near", is_near), ("both", shares and is_near))
        }
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.near == pytest.approx(found.sharing, rel=0.1 if sample > 60 else 0.5)


def test_latents_that_split_share_as_many_pairs_as_are_near():
    """Latents in threes around each of ten parents share the parent's meta-latent: the pairs are the same."""
    parents = torch.eye(20)[:10]
    directions = parents.repeat_interleave(3, 0) + 0.1 * draw_directions(30, parents, 1)
    weights = as_rows([[at // 3, 10 + at] for at in range(30)], 40)
    threshold, found = compare_equally_many(weights, directions, parents)
    assert 0.9 < threshold < 1
    assert found.near_of_sharing == found.sharing_of_near == 1
    weights = as_rows([[at % 10] for at in range(30)], 10)
    assert compare_equally_many(weights, directions, parents)[1].both == 0


def test_without_a_pair_there_is_no_share():
    found = count_pairs(as_rows([[0], [1]], 2), torch.tensor([0, 1]))
    assert found.near_of_sharing is None
    assert found.sharing_of_near is None


def test_the_nearest_other_direction():
    directions = draw_directions(50, torch.zeros(1, 8), 3)
    assert_close(directions.norm(dim=1), torch.ones(50))
    cosine = directions @ directions.T - 2 * torch.eye(50)
    assert_close(find_nearest_other(3 * directions, 7), cosine.amax(1))
    assert torch.equal(draw_directions(50, torch.zeros(1, 8), 3), directions)
    assert not torch.equal(draw_directions(50, torch.zeros(1, 8), 4), directions)
