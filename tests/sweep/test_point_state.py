"""The state of a point from its own folder, and the owner that a process records."""

import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest
from filelock import FileLock

from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point_state import Owner, State
from sae_sweeps.training.curve import TAIL_BYTES, last_line
from tests.commands import DONE_RESULTS

HERE = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(variable)


def test_a_point_without_a_folder_waits(tmp_path):
    assert point_state.read_state(tmp_path / "none") == State("waiting")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["", '{"state": "runni'])
def test_an_unreadable_state_file_counts_as_missing(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    assert point_state.read_state(tmp_path) == State("waiting")


def test_a_running_point_is_locked_and_is_interrupted_once_its_process_is_gone(tmp_path):
    point_state.write_state(tmp_path, "running")
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": 8}\n{"step": 12')
    with FileLock(tmp_path / ".lock"):
        assert point_state.is_locked(tmp_path)
        assert point_state.read_state(tmp_path) == State("running", step=8)
    assert not point_state.is_locked(tmp_path)
    assert point_state.read_state(tmp_path) == State("interrupted", f"{HERE} ended before the point was done", step=8)


def test_steps_done_is_the_later_of_curve_and_checkpoint(tmp_path):
    assert point_state.steps_done(tmp_path) == 0
    (tmp_path / "checkpoint" / "step-00000011").mkdir(parents=True)
    assert point_state.steps_done(tmp_path) == 11
    (tmp_path / "metrics.jsonl").write_text('{"step": 8}\n')
    assert point_state.steps_done(tmp_path) == 11
    (tmp_path / "metrics.jsonl").write_text('{"step": 8}\n{"step": 12}\n')
    assert point_state.steps_done(tmp_path) == 12


@pytest.mark.parametrize(("state", "reason"), [("failed", "the loss is nan"), ("interrupted", "SIGUSR1")])
def test_a_point_that_ended_early_has_its_reason(tmp_path, state, reason):
    point_state.write_state(tmp_path, state, reason)
    assert point_state.read_state(tmp_path) == State(state, reason)
    with FileLock(tmp_path / ".lock"):  # another process has taken it, but has not written state.json yet
        assert point_state.read_state(tmp_path) == State(state, reason)


@pytest.mark.parametrize("recorded", ["running", "failed", "interrupted"])
def test_a_point_with_results_is_done_whatever_its_state_file_says(tmp_path, recorded):
    point_state.write_state(tmp_path, recorded, "a reason")
    (tmp_path / "results.json").write_text(DONE_RESULTS)
    assert point_state.is_done(tmp_path)
    assert point_state.read_state(tmp_path) == State("done")


def test_truncated_results_are_not_done(tmp_path):
    (tmp_path / "results.json").write_text('{"metrics": ')
    assert not point_state.is_done(tmp_path)


def test_a_lock_is_released_when_its_process_is_killed(tmp_path):
    holds = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire()\n"
        "print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holds, tmp_path / ".lock"], stdout=subprocess.PIPE, text=True)
    with process:
        process.stdout.readline()
        held = point_state.is_locked(tmp_path)
        process.kill()
    assert held
    assert not point_state.is_locked(tmp_path)


@pytest.mark.parametrize(
    ("environment", "job", "restarts"),
    [
        ({}, None, 0),
        ({"SLURM_JOB_ID": "12"}, "12", 0),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, "12", 2),
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3", 0),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}, "12_0", 0),
    ],
)
def test_an_owner_has_the_job_id_that_squeue_prints(tmp_path, monkeypatch, environment, job, restarts):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    this = Owner.current()
    assert this == Owner(socket.gethostname(), os.getpid(), job, restarts)
    assert str(this) == HERE + (f", job {job}" if job else "")
    point_state.write_state(tmp_path, "running")
    assert point_state.read_note(tmp_path).owner == this
    assert point_state.read_state(tmp_path) == State(
        "interrupted", f"{this} ended before the point was done", job, restarts
    )


def test_last_line_returns_the_last_complete_line_of_a_long_curve(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert last_line(file) is None
    file.write_text("")
    assert last_line(file) is None
    lines = [json.dumps({"step": step, "loss": step / 7}) + "\n" for step in range(1000)]
    file.write_text("".join(lines))
    assert file.stat().st_size > 2 * TAIL_BYTES
    assert last_line(file) == json.loads(lines[-1])
    file.write_text("".join(lines) + lines[0][:-4])
    assert last_line(file) == json.loads(lines[-1])
    file.write_text(lines[0][:-4])
    assert last_line(file) is None


def test_a_failure_is_recorded_only_if_no_process_holds_the_lock(tmp_path):
    point_state.write_state_if_unlocked(tmp_path, "failed", "the first")
    assert point_state.read_state(tmp_path).reason == "the first"
    with FileLock(tmp_path / ".lock"):
        point_state.write_state_if_unlocked(tmp_path, "failed", "the second")
    assert point_state.read_state(tmp_path).reason == "the first"


def test_checking_a_lock_works_while_another_process_checks_it(tmp_path):
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not point_state.is_locked(tmp_path)
