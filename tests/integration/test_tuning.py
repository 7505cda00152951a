"""Optuna proposes points of the embedded model: `experiment=tune`."""

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import launch

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
pytestmark = pytest.mark.integration

SHORT = [
    *("-m", "experiment=tune", "dict_size=192", "device=cpu", "tracking=off"),
    *("training.tokens=8192", "training.batch_size=256", "training.chunk_batches=8", "training.warmup_steps=4"),
    *("evaluation.tokens=1024", "then=[report]"),
]


def read(folder: Path) -> tuple[list[dict[str, float]], dict]:
    """Return the metrics and swept settings of each point in results.csv, and what Optuna has written."""
    sweep = folder / "outputs" / "tune"
    with (sweep / "results.csv").open() as file:
        rows = [{name: float(row[name]) for name in ("nmse", "l0", "k", "training.lr")} for row in csv.DictReader(file)]
    return rows, OmegaConf.to_container(OmegaConf.load(sweep / "optimization_results.yaml"))


def test_the_best_trial_is_the_point_with_the_smallest_error(tmp_path):
    words = [*SHORT, "objective=nmse", "hydra.sweeper.direction=minimize"]
    done = launch(*words, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows, found = read(tmp_path)
    assert len(rows) == 12
    best = min(rows, key=lambda row: row["nmse"])
    assert len({row["nmse"] for row in rows}) == 12  # else any would be the smallest
    assert found["best_value"] == pytest.approx(best["nmse"], rel=1e-6)
    assert found["best_params"] == pytest.approx({"k": best["k"], "training.lr": best["training.lr"]}, rel=1e-9)
    assert done.stdout.count("loading the language model") == 1
    assert done.stdout.count("ran 4 points in") == 3  # packs: one per batch, which runs the model once
    again = launch(*words, cwd=tmp_path, timeout=600)  # proposes the same points, which are done
    assert again.returncode == 0, again.stdout + again.stderr
    assert "loading the language model" not in again.stdout
    assert again.stdout.count("the point is already done and is skipped") == 12
    assert read(tmp_path) == (rows, found)


def test_two_objectives_give_the_points_that_no_other_beats_in_both(tmp_path):
    done = launch(*SHORT, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows, found = read(tmp_path)
    expected = [
        row
        for row in rows
        if not any(other is not row and other["nmse"] <= row["nmse"] and other["l0"] <= row["l0"] for other in rows)
    ]
    assert 1 < len(expected) < len(rows) == 12
    values = sorted(solution["values"] for solution in found["solutions"])
    assert values == [pytest.approx(pair, rel=1e-6) for pair in sorted([row["nmse"], row["l0"]] for row in expected)]


def test_a_batch_with_too_many_failures_ends_the_command_with_the_reason(tmp_path):
    done = launch(*SHORT, "training.lr=1e38", "sae.normalize_input=false", cwd=tmp_path, timeout=600)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: batchtopk-192-k")
    assert "the loss is " in last
    assert len(list((tmp_path / "outputs" / "tune").glob("batchtopk-*"))) == 4  # no second batch
