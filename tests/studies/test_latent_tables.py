"""Tables of latents: where the tokens of a quote begin, and histograms of logits."""

import numpy as np
import pytest
import torch

from sae_sweeps.studies.latent_tables import LOGIT_BINS, count_logits, list_cuts


@pytest.mark.parametrize(
    ("located", "cuts"),
    [
        ([], []),
        ([(0, 3)], []),
        ([(0, 3), (3, 4), (4, 9)], [3, 4]),
        ([(4, 9), (0, 3), (3, 4)], [3, 4]),  # in any order
        ([(0, 2), (2, 3), (2, 3), (3, 5)], [2, 3]),  # two tokens are one character
        ([(0, 3), (2, 3), (3, 5)], [3]),  # the second token is the rest of a character that the first begins
        ([(1, 3), (3, 5)], [3]),  # the first token has no text
    ],
)
def test_a_quote_is_cut_where_a_token_begins(located, cuts):
    assert list_cuts(located) == cuts


def test_histograms_of_logits_are_those_of_numpy():
    logits_NV = torch.randn(7, 500, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits_NV[3] = logits_NV[3].round()  # values on the edges of bins
    for row_V, found in zip(logits_NV.numpy(), count_logits(logits_NV), strict=True):
        counts, edges = np.histogram(row_V, bins=LOGIT_BINS)
        assert found["low"] == row_V.min()
        assert found["width"] == pytest.approx(edges[1] - edges[0])
        assert sum(found["counts"]) == 500
        np.testing.assert_array_equal(found["counts"], counts)


def test_equal_logits_have_one_bin():
    (found,) = count_logits(torch.full((1, 9), 2.5))
    assert found == {"low": 2.5, "width": 0.0, "counts": [9]}
