"""What all studies share: their files, skipping finished ones, failing one by one, and the lock of a study."""

import csv
import json

import pytest
from filelock import FileLock
from matplotlib import image

from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.tasks import run_studies
from sae_sweeps.tasks.follow_ups import run_follow_up
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import contents, done, point, undo

ALWAYS = {"results.json", "launch.log", ".lock", "latents.parquet"}
PICTURES = {
    "stitch": {"cosines", "mse_change", "roc", "interpolation", "insertion", "families"},
    "meta_sae": {"explained_variance", "meta_latents_per_latent", "matches"},
    "meta_sizes": set(),
    "latents": set(),
}
OF_META_SAES = {"meta_latents.parquet", "metrics.jsonl", "sae", "control", "checkpoint", "decomposed.json"}
OTHERS = {
    "stitch": {"small_latents.parquet", "families.parquet"},
    "meta_sae": {"examples.md", *OF_META_SAES},
    "meta_sizes": OF_META_SAES,
    "latents": set(),
}
COUNTS = {"stitch": 2, "meta_sae": 2, "meta_sizes": 2, "latents": 4}


@pytest.mark.parametrize("task", COUNTS)
def test_every_study_after_a_sweep_writes_all_its_files(swept, task):
    folders = done(swept, task)
    assert len(folders) == COUNTS[task]
    pictures = {f"{name}.png" for name in PICTURES[task]}
    for folder in folders:
        assert {entry.name for entry in folder.iterdir()} == ALWAYS | OTHERS[task] | pictures
        assert f"{folder.name}: " in (folder / "launch.log").read_text()
        assert json.loads((folder / "results.json").read_text())["provenance"]["packages"]["torch"]
    with open(swept / f"{task}.csv") as file:
        assert [row["study"] for row in csv.DictReader(file)] == [folder.name for folder in folders]
    assert Sweep(swept).read()["followed"][task] == {"state": "done", "reason": None, "job": None}


def test_the_figures_are_not_blank(swept):
    pictures = sorted(swept.glob("*/*/*.png"))
    assert len(pictures) == 2 * 6 + 2 * 3
    for picture in pictures:
        pixels = image.imread(picture)[..., :3].reshape(-1, 3)
        assert len(pixels) > 100_000
        assert 0.01 < (pixels < 0.9).any(1).mean() < 0.9, picture


@pytest.mark.parametrize("task", COUNTS)
def test_the_same_command_again_changes_nothing(first, command, task):
    before = contents(first)
    ran = command(f"task={task}", *GIVEN)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("this study is already done and is skipped") == COUNTS[task]
    assert contents(first) == before


def test_other_settings_are_another_study(first, command):
    before = done(first, "latents")
    again = command("task=latents", *GIVEN, "latents.before=3")
    assert again.code == 0
    assert set(before) < set(done(first, "latents"))
    with open(first / "latents.csv") as file:
        assert sorted(row["before"] for row in csv.DictReader(file)) == ["12"] * 4 + ["3"] * 4


def test_a_failed_study_does_not_stop_the_others_and_has_no_results(first, command):
    undo(first, "stitch")
    weights = point(first, "batchtopk-32") / "sae" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    ran = command("task=stitch", *GIVEN)
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert line.startswith("stitch: batchtopk-32-k4-seed0--batchtopk-48-k4-seed0-")
    assert "cannot be read" in line
    assert [folder.name.partition("-")[0] for folder in done(first, "stitch")] == ["topk"]
    (failed,) = first.glob("stitch/batchtopk-*")
    assert {entry.name for entry in failed.iterdir()} == {".lock", "launch.log"}
    assert "cannot be read" in (failed / "launch.log").read_text()
    assert "Traceback" not in ran.out + ran.err


def test_an_unexpected_error_has_its_traceback_in_the_log_alone(first, command, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by zero")

    undo(first, "latents")
    monkeypatch.setattr("sae_sweeps.tasks.latents.write_table", broken)
    ran = command("task=latents", *GIVEN)
    assert ran.code == 1
    names = [folder.name for folder in (first / "latents").iterdir()]
    assert sorted(ran.err.splitlines()) == sorted(f"latents: {name}: ZeroDivisionError: by zero" for name in names)
    assert not done(first, "latents")
    assert all("Traceback" in log.read_text() for log in first.glob("latents/*/launch.log"))


def test_a_study_locked_by_another_process_is_not_run(first, command, monkeypatch):
    monkeypatch.setattr(point_state, "LOCK_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(run_studies, "LOCK_TIMEOUT", 0.2)
    mine, others, *_ = done(first, "latents")
    for folder in (mine, others):
        (folder / "results.json").unlink()
    with FileLock(others / ".lock"):
        ran = command("task=latents", *GIVEN)
    assert ran.code == 1
    assert ran.err == f"latents: {others.name}: another process is running this study; wait for it to end, or stop it\n"
    assert (mine / "results.json").exists()
    assert not (others / "results.json").exists()


def test_finished_pairs_are_studied_and_unfinished_points_named(first, command):
    undo(first, "stitch")
    missing = point(first, "topk-48")
    (missing / "results.json").unlink()
    ran = command("task=stitch", *GIVEN)
    assert (ran.code, ran.err) == (
        1,
        f"stitch: points without a trained SAE are skipped: {missing.name}\n",
    )
    assert [folder.name.partition("-")[0] for folder in done(first, "stitch")] == ["batchtopk"]


def test_a_then_task_fails_if_points_are_missing(first):
    missing = point(first, "topk-48")
    (missing / "results.json").unlink()
    sweep, config = Sweep(first), composed(*GIVEN)
    assert not run_follow_up("stitch", sweep, config)
    noted = sweep.read()["followed"]["stitch"]
    assert (noted["state"], noted["reason"]) == (
        "failed",
        f"points without a trained SAE are skipped: {missing.name}",
    )


def test_a_then_task_is_not_run_if_no_point_is_done(first):
    points = Sweep(first).points()
    for missing in points:
        (missing.folder / "results.json").unlink()
    sweep, config = Sweep(first), composed(*GIVEN)
    for task in COUNTS:
        assert not run_follow_up(task, sweep, config)
        noted = sweep.read()["followed"][task]
        needed = [point.name for point in points if task != "meta_sae" or "-48-" in point.name]  # the largest
        names = ", ".join(needed)
        assert (noted["state"], noted["reason"]) == (
            "not run",
            f"points without a trained SAE are skipped: {names}",
        )
