"""Tasks on a whole sweep, and the limits of a sweep, run as commands."""

import csv
import json
import signal
import time

import pytest

from tests.commands import checkpoints_in
from tests.conftest import launch, start

RERUN = "rerun the original command to resume unfinished points"


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny):
    """A folder with two sweeps: `first` has two done points, `mixed` has one done and one failed point."""
    folder = tmp_path_factory.mktemp("ran")
    first = launch("-m", *tiny, "k=3,4", "name=first", "then=[report]", cwd=folder)
    assert first.returncode == 0, first.stdout + first.stderr
    words = ["sae=jumprelu", "sae.sparsity_coefficient=0.01", "training.lr=1e38,1e-3"]
    mixed = launch("-m", *tiny, *words, "name=mixed", "then=[report]", cwd=folder)
    assert mixed.returncode == 1
    return folder


def read(folder, name) -> dict:
    return json.loads((folder / "outputs" / name / "sweep.json").read_text())


def files_in(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_plan_is_printed_and_writes_no_files(tmp_path, tiny):
    done = launch("-m", *tiny, "k=3,4,5", "dict_size=48,96", "task=plan", "hydra.launcher.max_points=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    titles = [line.split()[0] for line in done.stdout.splitlines()]
    assert titles == ["points", "packs", "tokens", "memory", "disk", "hours"]
    assert done.stdout.splitlines()[0] == "points  6"
    assert done.stdout.splitlines()[1] == "packs   2 (4 + 2 points)"
    assert "4,800 through the language model, 14,400 through the SAEs" in done.stdout
    assert files_in(tmp_path) == []


def test_a_plan_of_one_point_is_printed_and_writes_no_files(tmp_path, tiny):
    done = launch(*tiny, "task=plan", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "points  1")
    assert files_in(tmp_path) == []


def test_a_plan_counts_done_points_and_uses_the_measured_speed(ran, tiny):
    before = files_in(ran)
    done = launch("-m", *tiny, "k=3,4,5", "name=first", "task=plan", cwd=ran)
    assert "points  3 (2 are done already)" in done.stdout
    assert "estimated from the speed of earlier runs on CPU with" in done.stdout
    assert files_in(ran) == before


def test_a_sweep_over_a_limit_is_refused_in_one_line(tmp_path, tiny):
    done = launch("-m", *tiny, "k=3,4", "limits.points=1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: limits.points=1: the sweep needs 2 points, which is more than this limit. "
        "Fix: use fewer points, or raise the limit"
    ]
    assert files_in(tmp_path) == []


def test_a_plan_over_its_limits_is_printed_with_a_line_per_limit(tmp_path, tiny):
    words = ["limits.points=1", "limits.disk_gib=1e-9", "limits.gpu_hours=1e-9", "task=plan"]
    done = launch("-m", *tiny, "k=3,4", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 6
    assert [line.split("=")[0] for line in done.stderr.splitlines()] == [
        "error: limits.points",
        "error: limits.disk_gib",
        "error: limits.gpu_hours",
    ]


def test_invalid_points_are_listed_and_no_files_are_written(tmp_path, tiny):
    done = launch("-m", *tiny, "k=3,4,5,99", "seed=0,1,2", cwd=tmp_path)
    assert done.returncode == 1
    count, line = done.stderr.splitlines()
    assert count == "error: 3 of 12 points have invalid settings, so nothing was run"
    assert line.startswith("error: k=99: must be at most dict_size=48, the number of latents.")
    for seed in (0, 1, 2):
        assert f"batchtopk-48-k99-seed{seed}-" in line
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("task", ["status", "report", "sync"])
def test_a_missing_sweep_is_refused_with_the_names_of_existing_sweeps(ran, task):
    before = files_in(ran)
    done = launch(f"task={task}", "name=furst", cwd=ran)
    assert done.returncode == 1
    problem = "no such sweep in outputs; the sweeps there are: first, mixed. Fix: name=first"
    assert done.stderr == f"error: name=furst: {problem}\n"
    assert files_in(ran) == before


def test_a_refusal_names_no_sweeps_if_there_are_none(tmp_path):
    done = launch("task=status", "name=first", cwd=tmp_path)
    assert done.stderr == "error: name=first: no such sweep in outputs; there are no sweeps yet. Fix: train one first\n"
    assert files_in(tmp_path) == []


def test_a_refusal_keeps_the_hydra_files_of_another_command(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("another command\n")
    assert launch("task=status", "name=first", cwd=tmp_path).returncode == 1
    assert files_in(tmp_path) == [".hydra", ".hydra/config.yaml"]


def test_status_shows_done_points(ran):
    done = launch("task=status", "name=first", cwd=ran)
    assert done.returncode == 0, done.stderr
    assert "sweep first: 2 points, 2 done" in done.stdout
    rows = [line for line in done.stdout.splitlines() if "batchtopk-48-k" in line]
    assert len(rows) == 2
    assert all("done" in row and "40 of 40" in row for row in rows)
    assert "then report: done" in done.stdout
    assert RERUN not in done.stdout


def test_status_shows_why_a_point_failed(ran):
    done = launch("task=status", "name=mixed", cwd=ran)
    assert done.returncode == 0
    assert "sweep mixed: 2 points, 1 done, 1 failed" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED jumprelu-48-")]
    assert "the loss is" in line
    assert line.endswith("launch.log)")
    assert RERUN in done.stdout


def test_status_distinguishes_a_killed_point_from_a_running_one(tmp_path, tiny):
    words = [*tiny, "name=killed", "training.tokens=3000000"]
    process = start(*words, cwd=tmp_path)
    try:
        while process.poll() is None and not checkpoints_in(tmp_path / "outputs" / "killed"):
            time.sleep(0.01)
        running = launch("task=status", "name=killed", cwd=tmp_path)
        assert "sweep killed: 1 point, 1 running" in running.stdout
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = launch("task=status", "name=killed", cwd=tmp_path)
    assert "sweep killed: 1 point, 1 interrupted" in done.stdout
    assert f"process {process.pid} on" in done.stdout
    assert RERUN in done.stdout
    (point,) = read(tmp_path, "killed")["points"].values()
    assert point["state"] == "interrupted"


def test_a_report_follows_even_if_a_point_failed(ran):
    for name, points in (("first", 2), ("mixed", 1)):
        assert read(ran, name)["followed"] == {"report": {"state": "done", "reason": None, "job": None}}
        with open(ran / "outputs" / name / "results.csv") as file:
            assert len(list(csv.DictReader(file))) == points


def test_a_report_can_be_written_again_and_names_failed_points(ran):
    (ran / "outputs" / "mixed" / "results.csv").unlink()
    done = launch("task=report", "name=mixed", cwd=ran)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FAILED jumprelu-48-") == 1
    assert "NMSE" in done.stdout
    assert (ran / "outputs" / "mixed" / "results.csv").exists()


@pytest.mark.parametrize("several", [[], ["-m", "k=3,4"]])
def test_an_unknown_follow_up_task_is_refused(tmp_path, tiny, several):
    done = launch(*several, *tiny, "then=[report,nonsense]", cwd=tmp_path)
    assert done.returncode == 1
    assert "then=['report', 'nonsense']: names tasks that cannot run after training: nonsense." in done.stderr
    assert not list(tmp_path.glob("outputs/*/*"))
