"""Task `stitch` on a tiny sweep: its metrics and the points' own, its tables, and named pairs."""

import json

import pyarrow.parquet as pq
import pytest

from tests.conftest import GIVEN
from tests.tasks.conftest import done, point

LATENTS = {"latent": "int32", "cosine": "float", "nearest": "int32", "family": "int32", "frequency": "float"}
LARGE = LATENTS | {"novel": "bool", "mse_change": "double"}


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(params=["batchtopk", "topk"])
def stitched(request, swept) -> dict:
    """Return the results of a pair of the sweep."""
    (folder,) = done(swept, "stitch", request.param)
    return results(folder)


@pytest.mark.parametrize(("part", "end"), [("small", 0), ("large", -1)])
def test_the_interpolation_ends_have_the_points_metrics(swept, stitched, part, end):
    own = results(swept / stitched["study"][part]["point"])["metrics"]
    curves, metrics = stitched["curves"], stitched["metrics"]
    assert curves["interpolation"]["nmse"][end] == metrics[f"nmse_{part}"] == pytest.approx(own["nmse"], rel=1e-5)
    assert curves["interpolation"]["l0"][end] == metrics[f"l0_{part}"] == pytest.approx(own["l0"], rel=1e-5)
    degradation = curves["ce_degradation"]["nats"][end]
    assert degradation == metrics[f"ce_{part}"] == pytest.approx(own["ce_degradation"], rel=1e-5)


def test_every_path_starts_at_the_small_sae(stitched):
    metrics, curves = stitched["metrics"], stitched["curves"]
    for name in ("interpolation", "reconstruction", "random", "by_cosine"):
        assert curves[name]["nmse"][0] == pytest.approx(metrics["nmse_small"])
        assert curves[name]["latents"][0] == 32
    assert curves["interpolation"]["latents"][-1] == 48
    assert curves["interpolation"]["latents"][curves["novel_in"]] == 32 + metrics["novel"]
    assert curves["random"]["latents"][-1] == 32 + 48


def test_the_tables_have_a_row_per_latent_and_agree_with_the_results(swept, stitched):
    folder = swept / "stitch" / stitched["study"]["name"]
    for file, columns, rows in (("latents", LARGE, 48), ("small_latents", LATENTS, 32)):
        table = pq.read_table(folder / f"{file}.parquet")
        assert {column.name: str(column.type) for column in table.schema} == columns
        assert table["latent"].to_pylist() == list(range(rows))
    table, metrics = pq.read_table(folder / "latents.parquet").to_pydict(), stitched["metrics"]
    assert table["novel"] == [cosine < 0.7 for cosine in table["cosine"]]
    assert sum(table["novel"]) == metrics["novel"]
    assert sum(table["frequency"]) == pytest.approx(metrics["l0_large"], rel=1e-5)
    assert sum(frequency > 0 for frequency in table["frequency"]) == metrics["latents_active"]
    assert all(change == 0 for change, often in zip(table["mse_change"], table["frequency"], strict=True) if often == 0)


def test_the_results_have_a_row_per_threshold(stitched):
    rows = stitched["thresholds"]
    assert [row["threshold"] for row in rows] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    novel = [row["novel"] for row in rows]
    assert novel == sorted(novel)
    assert novel[4] == stitched["metrics"]["novel"]


def test_another_threshold_is_another_study_with_a_row_of_its_own(first, command):
    assert command("-m", "task=stitch", *GIVEN, "stitch.threshold=0.45,0.7").code == 0
    assert len(done(first, "stitch")) == 4
    both = [results(folder) for folder in done(first, "stitch", "topk")]
    (found,) = [one for one in both if one["study"]["settings"]["threshold"] == 0.45]
    assert 0.45 in [row["threshold"] for row in found["thresholds"]]
    (same,) = [row for row in found["thresholds"] if row["threshold"] == 0.45]
    assert same["novel"] == found["metrics"]["novel"]
    assert same["nmse_novel_in"] == pytest.approx(found["metrics"]["nmse_novel_in"], rel=1e-5)


def test_saes_of_two_architectures_can_be_named_by_folder(first, command, tmp_path):
    small, large = point(first, "topk-32"), point(first, "batchtopk-48") / "sae"
    given = [word for word in GIVEN if not word.startswith("name=")]
    ran = command("task=stitch", *given, "name=pairs", f"small={small.relative_to(tmp_path)}", f"large={large}")
    assert (ran.code, ran.err) == (0, "")
    (folder,) = done(tmp_path / "outputs" / "pairs", "stitch")
    assert folder.name.startswith("topk-32-k4-seed0--batchtopk-48-k4-seed0-")
    found = results(folder)
    for part, end, folder_of_point in (("small", 0, small), ("large", -1, large.parent)):
        assert found["study"][part]["point"] == folder_of_point.name
        own = results(folder_of_point)["metrics"]["nmse"]
        assert found["curves"]["interpolation"]["nmse"][end] == pytest.approx(own, rel=1e-5)
    swapped = command("task=stitch", *given, "name=swapped", f"small={large}", f"large={small}")
    assert swapped.code == 0
    assert "the SAE of small= has 48 latents, more than the 32 latents of large=" in swapped.out + swapped.err
