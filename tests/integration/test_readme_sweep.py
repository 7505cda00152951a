"""The sweep in the README and its studies: every point and study has the promised quality."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import launch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Run the sweep of the README. Returns the sweep's folder."""
    folder = tmp_path_factory.mktemp("readme")
    done = launch("-m", "sae=batchtopk,topk,jumprelu", "dict_size=3072,6144", cwd=folder, timeout=900)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return folder / "outputs" / "sweep"


@pytest.fixture(scope="module")
def studied(sweep) -> Path:
    """Run the studies of the README. Returns the sweep's folder."""
    for task in ("stitch", "meta_sae", "report"):
        done = launch(f"task={task}", "name=sweep", cwd=sweep.parents[1], timeout=900)
        assert done.returncode == 0, done.stderr
    return sweep


@pytest.fixture(scope="module")
def rows(sweep) -> dict[tuple[str, int], dict[str, float]]:
    with open(sweep / "results.csv") as file:
        found = list(csv.DictReader(file))
    numbers = ("nmse", "l0", "k", "ce_recovered_mean", "ce_degradation")
    return {(row["architecture"], int(row["dict_size"])): {name: float(row[name]) for name in numbers} for row in found}


def studies(sweep: Path, task: str) -> dict[str, dict[str, float]]:
    """Return the metrics of a task's studies by architecture."""
    found = [json.loads(file.read_text()) for file in sweep.glob(f"{task}/*/results.json")]
    return {one["config"]["sae"]["architecture"]: one["metrics"] for one in found}


def test_six_points_recover_most_of_the_cross_entropy(rows):
    assert len(rows) == 6
    assert all(row["ce_recovered_mean"] >= 0.8 for row in rows.values())


def test_l0_is_close_to_its_target(rows):
    allowed = {"topk": 0.0, "batchtopk": 0.05, "jumprelu": 0.03}
    for (architecture, _), row in rows.items():
        assert abs(row["l0"] / row["k"] - 1) <= allowed[architecture]


@pytest.mark.parametrize("dict_size", [3072, 6144])
def test_batchtopk_reconstructs_at_least_as_well_as_topk(rows, dict_size):
    assert rows["batchtopk", dict_size]["nmse"] <= rows["topk", dict_size]["nmse"]


@pytest.mark.long
def test_the_cosine_predicts_which_latents_lower_the_error(studied):
    found = studies(studied, "stitch")
    assert sorted(found) == ["batchtopk", "jumprelu", "topk"]
    assert all(metrics["auroc"] >= 0.8 for metrics in found.values())


@pytest.mark.long
def test_stitching_paths_lead_from_the_small_sae_to_the_large_one(studied, rows):
    for architecture, metrics in studies(studied, "stitch").items():
        for end, dict_size in (("small", 3072), ("large", 6144)):
            for name in ("nmse", "l0"):
                assert metrics[f"{name}_{end}"] == pytest.approx(rows[architecture, dict_size][name], rel=1e-6)


@pytest.mark.long
def test_meta_latents_explain_more_than_the_baselines(studied):
    found = studies(studied, "meta_sae")
    assert sorted(found) == ["batchtopk", "jumprelu", "topk"]
    for metrics in found.values():
        others = metrics["explained_variance_shuffled"], metrics["explained_variance_smaller_3072"]
        assert metrics["explained_variance"] > max(others)


@pytest.mark.long
def test_the_report_is_one_file_below_15_megabytes(studied):
    text = (studied / "report.html").read_text()
    assert len(text.encode()) < 15e6
    assert text.count("block-plotly") == 1
    assert all(f">{title}</h2>" in text for title in ("Points", "Stitching", "Meta-SAEs", "Latent explorer"))
