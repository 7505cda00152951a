"""Numbers of active latents in the page."""

import dataclasses

import pytest

from sae_sweeps.report.points import list_metrics, list_points, read_sparsity
from sae_sweeps.sweep.comparison import group_by_seed
from tests.report.made import compared, some_metrics

SPARSITY = {
    "histogram": {"width": 2, "counts": [1, 0, 3]},
    "by_position": [None, 2.000001, 4],
    "special": {"positions": 2, "l0": 9.5},
}


def with_sparsity(sparsity):
    point = compared(nmse=0.1, l0=32.0)
    return dataclasses.replace(point, results={**point.results, "sparsity": sparsity})


def test_numbers_of_active_latents_are_read_and_rounded():
    point = with_sparsity(SPARSITY)
    assert read_sparsity(point) == {**SPARSITY, "by_position": [None, 2, 4]}
    (row,) = list_points(group_by_seed([point]))
    assert row["has_sparsity"]


@pytest.mark.parametrize("sparsity", [None, [], {**SPARSITY, "special": {}}, {**SPARSITY, "by_position": ["2"]}])
def test_results_without_numbers_of_active_latents_are_shown_without(sparsity):
    assert read_sparsity(with_sparsity(sparsity)) is None
    assert read_sparsity(compared()) is None


def test_a_metric_that_no_point_has_is_no_column_if_it_is_optional():
    points = [compared(**some_metrics(0)), compared("k=64", **some_metrics(1), nmse_at_k=0.1)]
    names = [metric["name"] for metric in list_metrics(points)]
    assert "nmse_at_k" in names
    assert "nmse_at_k" not in [metric["name"] for metric in list_metrics(points[:1])]
    assert {"top_variance_share", "kl_divergence"} & set(names) == {"top_variance_share"}
