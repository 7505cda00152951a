"""Correlations of latents, against a dense computation and planted partners."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from sae_sweeps.studies import correlation
from sae_sweeps.studies.correlation import correlate, correlate_by_chance, summarise_correlations
from sae_sweeps.studies.matching import match


@pytest.fixture
def pair():
    """Activations (500, 7) and (500, 5): sparse, one latent of each side silent, and one always equally active."""
    draw = np.random.default_rng(0)
    left, right = (draw.exponential(size=(500, width)) * (draw.random((500, width)) < 0.2) for width in (7, 5))
    left[:, 3], right[:, 1], right[:, 2] = 0, 0, 4.2
    return left, right


@pytest.mark.parametrize("block", [2, 1024])
def test_the_largest_correlations_are_those_of_a_dense_computation(pair, block, monkeypatch):
    monkeypatch.setattr(correlation, "BLOCK", block)
    left, right = pair
    with np.errstate(invalid="ignore"):
        dense = np.nan_to_num(np.corrcoef(left.T, right.T)[:7, 7:])
    found = correlate(csr_array(left), csr_array(right))
    for one, axis in zip(found, (1, 0), strict=True):
        np.testing.assert_allclose(one.value, dense.max(axis), atol=1e-12)
        varied = dense.max(axis) > 1e-9
        assert one.index[varied].tolist() == dense.argmax(axis)[varied].tolist()


def test_planted_partners_are_found_and_shuffled_ones_are_not(pair):
    left, _ = pair
    left = np.delete(left, 3, 1)
    order = [4, 2, 0, 5, 1, 3]
    right = 3.0 * left[:, order]
    found = correlate(csr_array(left), csr_array(right))
    assert found[1].index.tolist() == order
    np.testing.assert_allclose(found[0].value, 1, atol=1e-9)
    assert correlate_by_chance(csr_array(left), csr_array(right), 0) < 0.2


def test_partners_by_cosine_and_by_correlation_are_compared(pair):
    left = csr_array(np.delete(pair[0], 3, 1))
    directions = torch.eye(6)
    nearest = match(directions, directions)
    found = summarise_correlations(nearest, correlate(left, left[:, [0, 1, 2, 3, 5, 4]]), 0.1)
    assert found["same_partner_share"] == pytest.approx(4 / 6)
    assert found["right_correlation_mean"] == found["left_correlation_mean"] == pytest.approx(1)
