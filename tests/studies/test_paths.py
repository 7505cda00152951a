"""Paths from one SAE to another, checked against sets of latents and dense matrices."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.paths import insert_by_value, insert_in_order, interpolate
from tests.studies.random_saes import (
    ARCHITECTURES,
    LARGE,
    SMALL,
    activations,
    dense_reconstruction,
    families_of,
    random_path,
    random_sae,
)


def latents_at(path, position):
    """Return the sets of the small and of the large SAE's latents at a position."""
    small = {latent for latent, gone in enumerate(path.removed_at.tolist()) if gone > position}
    large = {latent for latent, come in enumerate(path.inserted_at.tolist()) if come <= position}
    return small, large


@pytest.mark.parametrize("positions", [1, 4, 20, 200])
@pytest.mark.parametrize("listed", [0, 1, 19, LARGE])
def test_insert_in_order_inserts_about_equal_portions_in_order(listed, positions):
    order = torch.randperm(LARGE, generator=torch.Generator().manual_seed(1))[:listed]
    path = insert_in_order(order, SMALL, LARGE, positions)
    assert path.length == min(positions, listed)
    arrived = []
    for position in range(path.length + 1):
        small, large = latents_at(path, position)
        assert small == set(range(SMALL))
        assert large == set(order[: len(large)].tolist())
        arrived.append(len(large))
    portions = np.diff(arrived)
    assert arrived[0] == 0
    assert arrived[-1] == listed
    assert listed == 0 or portions.max() - portions.min() <= 1
    assert path.latent_count.tolist() == [SMALL + count for count in arrived]
    assert path.bias_switched_at > path.length


def test_insert_by_value_inserts_the_latents_below_each_limit():
    value_L = torch.tensor([0.05, 0.3, 0.299, 0.5, -1.0, 0.9, 0.7, 0.31])
    limits = [0.3, 0.4, 0.7]
    path = insert_by_value(value_L, limits, 3)
    assert path.length == 3
    assert latents_at(path, 0) == ({0, 1, 2}, set())
    for position, limit in enumerate(limits, start=1):
        below = {latent for latent, value in enumerate(value_L.tolist()) if value < torch.tensor(limit).item()}
        assert latents_at(path, position) == ({0, 1, 2}, below)
    assert path.latent_count.tolist() == [3, 6, 8, 9]
    assert path.bias_switched_at > path.length


def test_a_value_rounded_to_the_limit_is_not_below_it():
    """Novelty compares in the same way, so a latent inserted below the threshold is a novel one."""
    limits = [0.3, 0.7, 0.9]
    exact = torch.tensor(limits)
    value_L = torch.cat([exact, exact.nextafter(torch.zeros(3)), exact.nextafter(torch.ones(3))])
    path = insert_by_value(value_L, limits, 0)
    for position, limit in enumerate(limits, start=1):
        assert latents_at(path, position)[1] == set((value_L < limit).nonzero().flatten().tolist())
    assert path.latent_count.tolist() == [0, 1, 4, 7]


def assert_is_an_interpolation(path, novel_in, novel, families, positions):
    """Check the order: novel latents, then families with few members first, then the rest."""
    is_novel = set(novel.tolist())
    labels = set(families.right.tolist()) - {families.right[latent] for latent in is_novel}
    groups = [
        (set(np.flatnonzero(families.left == label)), set(np.flatnonzero(families.right == label)))
        for label in sorted(labels)
    ]
    orphans = set(range(len(families.left))) - set().union(*(small for small, _ in groups))

    assert novel_in == min(positions, len(novel))
    assert path.length == novel_in + min(positions, len(groups)) + 1
    assert path.bias_switched_at == path.length
    assert path.inserted_at.min() >= 1
    assert path.inserted_at.max() <= path.length
    for position in range(novel_in + 1):
        small, large = latents_at(path, position)
        assert small == set(range(len(families.left)))
        assert large == set(novel[: len(large)].tolist())
    assert latents_at(path, novel_in)[1] == is_novel

    moved = []
    for in_small, in_large in groups:
        when = {path.removed_at[latent].item() for latent in in_small} | {path.inserted_at[n].item() for n in in_large}
        assert len(when) == 1, "a family moves at one position"
        assert novel_in < min(when) < path.length
        moved.append((len(in_small) + len(in_large), when.pop()))
    for members, when in moved:
        assert all(later >= when for more, later in moved if more > members), "small families come first"
    assert all(path.removed_at[latent] == path.length for latent in orphans)
    assert latents_at(path, path.length) == (set(), set(range(len(families.right))))
    assert path.latent_count[0] == len(families.left)
    assert path.latent_count[-1] == len(families.right)


@pytest.mark.parametrize("positions", [1, 3, 20, 500])
@pytest.mark.parametrize("threshold", [-1.0, 0.45, 0.55, 0.65, 0.75, 1.1])
def test_an_interpolation_of_random_directions(threshold, positions):
    """The thresholds give from one family of all latents to none at all."""
    small_SD, large_LD = (random_sae("topk", size, size).W_dec.detach() for size in (SMALL, LARGE))
    compared = compare(small_SD, large_LD, [threshold])
    cosine_L = compared.right.cosine
    novel = (cosine_L < threshold).nonzero().squeeze(1)
    novel = novel[cosine_L[novel].argsort()]
    families = compared.families[threshold]
    path, novel_in = interpolate(novel, families, SMALL, LARGE, positions)
    assert_is_an_interpolation(path, novel_in, novel, families, positions)


@pytest.mark.parametrize("positions", [1, 2, 3, 7])
def test_an_interpolation_of_given_families(positions):
    """The moves are spread out by how many latents they move: here 2, 3, 3 and 5."""
    families = families_of([({0, 1, 2}, {3, 4}), ({5}, {0}), ({6}, {1, 2}), ({3, 4}, {7})], small=9, large=10)
    novel = torch.tensor([9, 5, 8, 6])
    path, novel_in = interpolate(novel, families, 9, 10, positions)
    assert_is_an_interpolation(path, novel_in, novel, families, positions)
    if positions == 7:
        assert path.inserted_at.tolist() == [5, 6, 6, 8, 8, 2, 4, 7, 3, 1]
        assert path.removed_at.tolist() == [8, 8, 8, 7, 7, 5, 6, 9, 9]


@pytest.mark.parametrize("positions", [1, 20])
def test_without_novel_latents_the_families_move_from_the_start(positions):
    families = families_of([({latent}, {latent}) for latent in range(5)], small=6, large=5)
    novel = torch.empty(0, dtype=torch.int64)
    path, novel_in = interpolate(novel, families, 6, 5, positions)
    assert_is_an_interpolation(path, novel_in, novel, families, positions)
    assert novel_in == 0
    assert path.removed_at[5] == path.length


@pytest.mark.parametrize("positions", [1, 20])
def test_if_all_latents_are_novel_the_small_sae_is_removed_last(positions):
    families = families_of([], small=4, large=7)
    novel = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    path, novel_in = interpolate(novel, families, 4, 7, positions)
    assert_is_an_interpolation(path, novel_in, novel, families, positions)
    assert path.length == novel_in + 1
    assert path.removed_at.tolist() == [path.length] * 4


@pytest.mark.parametrize("seed", range(3))
def test_counts_of_latents_and_of_active_latents(seed):
    path = random_path(seed)
    generator = torch.Generator().manual_seed(seed)
    fired_S, fired_L = (torch.randint(0, 1000, (size,), generator=generator) for size in (SMALL, LARGE))
    for position in range(path.length + 1):
        small, large = latents_at(path, position)
        assert path.latent_count[position] == len(small) + len(large)
        fired = sum(fired_S[latent].item() for latent in small) + sum(fired_L[latent].item() for latent in large)
        assert path.count_active(fired_S, fired_L)[position] == fired


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decode_sums_the_latents_present(architecture):
    small, large = random_sae(architecture, SMALL, 1), random_sae(architecture, LARGE, 2)
    x_AD, path = activations(23), random_path()
    kept_S, kept_L = (sae.find_active(sae.normalize(x_AD)) for sae in (small, large))
    for position in range(path.length + 1):
        decoded_AD = path.decode(position, small, kept_S, large, kept_L)
        expected_AD = dense_reconstruction(path, position, small, large, x_AD)
        assert_close(decoded_AD.detach(), expected_AD, rtol=1e-10, atol=1e-10)
