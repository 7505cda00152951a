"""Decoder directions compared tile by tile, checked against the whole cosine matrix and a graph search."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.studies import directions
from sae_sweeps.studies.directions import compare

N, M, D = 45, 71, 8
THRESHOLDS = (0.9, 0.3, 0.6, 0.75)


@pytest.fixture(params=[1, 4, 16, 45, 1024])
def tile(request, monkeypatch) -> int:
    monkeypatch.setattr(directions, "TILE", request.param)
    return request.param


def random_directions(count, seed, dtype=torch.float64):
    """Return directions of many norms, so that a missing normalisation shows."""
    generator = torch.Generator().manual_seed(seed)
    rows_ND = torch.randn(count, D, generator=generator, dtype=dtype)
    return rows_ND * (0.1 + 5 * torch.rand(count, 1, generator=generator, dtype=dtype))


def dense_cosines(left_ND, right_MD):
    """Return all cosines, (N, M); a row of zeros has cosine 0 with everything."""
    return (left_ND / left_ND.norm(dim=1, keepdim=True)).nan_to_num() @ (right_MD / right_MD.norm(dim=1)[:, None]).T


def found_families(families):
    """Return families as a set of sets of ("left", number) and ("right", number)."""
    members = {}
    for side in ("left", "right"):
        for number, label in enumerate(getattr(families, side).tolist()):
            members.setdefault(label, set()).add((side, number))
    return {frozenset(group) for group in members.values()}


def families_by_search(alike_NM):
    """Return the same by a graph search from each member."""
    unseen = {("left", number) for number in range(alike_NM.shape[0])}
    unseen |= {("right", number) for number in range(alike_NM.shape[1])}
    found = set()
    while unseen:
        waiting = [unseen.pop()]
        group = set(waiting)
        while waiting:
            side, number = waiting.pop()
            row = alike_NM[number] if side == "left" else alike_NM[:, number]
            other = "right" if side == "left" else "left"
            next_ones = {(other, int(place)) for place in row.nonzero()} & unseen
            unseen -= next_ones
            group |= next_ones
            waiting += next_ones
        found.add(frozenset(group))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_best_matches_are_the_maxima_of_the_whole_cosine_matrix(tile, dtype):
    left_ND, right_MD = random_directions(N, 0, dtype), random_directions(M, 1, dtype)
    found = compare(left_ND, right_MD)
    cosine_NM = dense_cosines(left_ND.double(), right_MD.double())
    bounds = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 1e-6}
    for side, dim in ((found.left, 1), (found.right, 0)):
        best = cosine_NM.max(dim)
        assert side.cosine.dtype == dtype
        assert_close(side.cosine.double(), best.values, **bounds)
        assert torch.equal(side.index, best.indices)
    assert found.families == {}


def test_a_row_of_zeros_has_cosine_zero_and_its_own_family(tile):
    left_ND, right_MD = random_directions(N, 0), random_directions(M, 1)
    left_ND[17] = 0
    found = compare(left_ND, right_MD, [0.3])
    assert found.left.cosine[17] == 0
    assert found.left.index[17] == 0
    assert frozenset({("left", 17)}) in found_families(found.families[0.3])
    assert_close(found.right.cosine, dense_cosines(left_ND, right_MD).max(0).values, rtol=0, atol=1e-12)


def test_the_first_of_equal_cosines_is_the_match(tile):
    left_ND, right_MD = (torch.eye(D)[torch.arange(count) % D] for count in (N, M))
    found = compare(left_ND, right_MD)
    assert torch.equal(found.left.cosine, torch.ones(N))
    assert torch.equal(found.left.index, torch.arange(N) % D)
    assert torch.equal(found.right.index, torch.arange(M) % D)


@pytest.mark.parametrize("edges", [1, 7, 2**21])
def test_families_are_the_components_that_a_graph_search_finds(tile, edges, monkeypatch):
    monkeypatch.setattr(directions, "EDGES", edges)
    left_ND, right_MD = random_directions(N, 2), random_directions(M, 3)
    found = compare(left_ND, right_MD, THRESHOLDS)
    cosine_NM = dense_cosines(left_ND, right_MD)
    assert found.families.keys() == set(THRESHOLDS)
    counts = set()
    for threshold, families in found.families.items():
        assert families.left.shape == (N,)
        assert families.right.shape == (M,)
        expected = families_by_search(cosine_NM >= threshold)
        assert found_families(families) == expected
        counts.add(len(expected))
    assert len(counts) == len(THRESHOLDS), "each threshold is a case of its own"


@pytest.mark.parametrize("edges", [1, 2**21])
def test_two_families_joined_by_many_pairs_become_one(edges, monkeypatch):
    """The first rows make two separate families; then 256 pairs at once connect them."""
    monkeypatch.setattr(directions, "EDGES", edges)
    monkeypatch.setattr(directions, "TILE", 16)
    one_D, other_D = torch.eye(D)[:2]
    left_ND = torch.stack([one_D] * 16 + [other_D] * 16)
    right_MD = torch.stack([one_D] * 8 + [other_D] * 8 + [one_D + other_D] * 16)
    families = compare(left_ND, right_MD, [0.7, 0.8]).families
    assert len(found_families(families[0.7])) == 1
    assert len(found_families(families[0.8])) == 2 + 16


def test_families_are_the_same_with_the_sides_exchanged(tile):
    left_ND, right_MD = random_directions(N, 4), random_directions(M, 5)
    one = found_families(compare(left_ND, right_MD, [0.7]).families[0.7])
    other = compare(right_MD, left_ND, [0.7]).families[0.7]
    other.left, other.right = other.right, other.left
    assert one == found_families(other)


def test_family_labels_count_up_from_zero_without_gaps():
    families = compare(random_directions(N, 0), random_directions(M, 1), [0.5]).families[0.5]
    labels = np.unique(np.concatenate([families.left, families.right]))
    assert labels.tolist() == list(range(len(labels)))


def test_directions_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="the left ones have width 8 and the right ones 5"):
        compare(torch.ones(3, 8), torch.ones(3, 5))


def test_progress_counts_rows_of_the_left_side(monkeypatch):
    monkeypatch.setattr(directions, "TILE", 16)
    calls = []
    left, right = random_directions(N, 0), random_directions(M, 1)
    compare(left, right, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(16, N), (32, N), (45, N)]
