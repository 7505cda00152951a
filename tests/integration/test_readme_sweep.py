"""The README's sweep, as it stands there: what it promises of every point."""

import csv

import pytest

from tests.conftest import launch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[tuple[str, int], dict[str, float]]:
    folder = tmp_path_factory.mktemp("readme")
    done = launch("-m", "sae=batchtopk,topk,jumprelu", "dict_size=3072,6144", cwd=folder, timeout=900)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    with open(folder / "outputs" / "sweep" / "results.csv") as file:
        found = list(csv.DictReader(file))
    numbers = ("nmse", "l0", "k", "ce_recovered_mean", "ce_degradation")
    return {(row["architecture"], int(row["dict_size"])): {name: float(row[name]) for name in numbers} for row in found}


def test_there_are_six_points_that_keep_most_of_the_cross_entropy(rows):
    assert len(rows) == 6
    assert all(row["ce_recovered_mean"] >= 0.8 for row in rows.values())


def test_l0_is_what_was_asked_for(rows):
    allowed = {"topk": 0.0, "batchtopk": 0.05, "jumprelu": 0.25}
    for (architecture, _), row in rows.items():
        assert abs(row["l0"] / row["k"] - 1) <= allowed[architecture]


@pytest.mark.parametrize("dict_size", [3072, 6144])
def test_batchtopk_reconstructs_at_least_as_well_as_topk(rows, dict_size):
    assert rows["batchtopk", dict_size]["nmse"] <= rows["topk", dict_size]["nmse"]
