"""The AUC and DeLong's intervals, compared with pairs that are counted and with texts that are drawn again."""

import numpy as np
import pytest

from sae_sweeps.studies.auc import find_difference, find_interval, place


def count_pairs(score_M, is_positive_M) -> float:
    pairs = [(high > low) + (high == low) / 2 for high in score_M[is_positive_M] for low in score_M[~is_positive_M]]
    return float(np.mean(pairs))


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    is_positive_M = rng.random(300) < 0.4
    score_M = np.round(rng.normal(size=300) + 0.8 * is_positive_M, 1)  # with ties
    return score_M, is_positive_M, rng


def test_the_auc_is_the_share_of_ordered_pairs(scored):
    score_M, is_positive_M, _ = scored
    placements = place(score_M, is_positive_M)
    assert placements.auc == pytest.approx(count_pairs(score_M, is_positive_M), abs=1e-12)
    assert placements.negative_N.mean() == pytest.approx(placements.auc, abs=1e-12)


def test_the_interval_is_as_wide_as_that_of_a_bootstrap(scored):
    score_M, is_positive_M, rng = scored
    drawn = []
    for _ in range(400):
        text_M = np.concatenate(
            [rng.choice(np.flatnonzero(part), part.sum()) for part in (is_positive_M, ~is_positive_M)]
        )
        drawn.append(place(score_M[text_M], is_positive_M[text_M]).auc)
    interval = find_interval(place(score_M, is_positive_M))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.15)


def test_a_paired_difference_is_narrower_than_two_intervals(scored):
    score_M, is_positive_M, rng = scored
    near_M = score_M + 0.1 * rng.normal(size=300)
    first, second = (place(one, is_positive_M) for one in (score_M, near_M))
    difference = find_difference(first, second)
    assert difference.value == pytest.approx(first.auc - second.auc, abs=1e-12)
    width = find_interval(first).high - find_interval(first).low
    assert difference.high - difference.low < 0.5 * width
    assert find_difference(first, first) == (0, 0, 0)


def test_perfect_and_equal_scores_have_no_width():
    is_positive_M = np.array([True] * 5 + [False] * 4)
    assert find_interval(place(np.arange(9.0), ~is_positive_M)) == (1, 1, 1)
    assert find_interval(place(np.arange(9.0), is_positive_M)) == (0, 0, 0)
    assert find_interval(place(np.zeros(9), is_positive_M)) == (0.5, 0.5, 0.5)
