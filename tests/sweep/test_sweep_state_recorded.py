"""The states of a whole sweep: several submissions, lost ones, points without a job, a Slurm that does not answer."""

import os

import pytest
from filelock import FileLock

from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point_state import State
from tests.commands import DONE_RESULTS
from tests.sweep.conftest import job, submission, write_note


@pytest.mark.parametrize("present", [[], [job("7_0", "RUNNING")], [job("7_0", "COMPLETED")]])
def test_a_point_with_results_is_done_whatever_slurm_says(read_sweep, present):
    write_note(read_sweep.sweep, "a", "running", "7_0")
    (read_sweep.sweep.folder / "a" / "results.json").write_text(DONE_RESULTS)
    assert read_sweep(submission(), jobs=present).points["a"] == State("done", None, "7_0")


def test_a_point_whose_process_outlived_its_job_is_running(read_sweep):
    write_note(read_sweep.sweep, "a", "running", "7_0", step=12)
    with FileLock(read_sweep.sweep.folder / "a" / ".lock"):
        assert read_sweep(submission(), ended={"7_0": "NODE_FAIL"}).points["a"] == State("running", None, "7_0", 0, 12)
    assert read_sweep(submission(), ended={"7_0": "NODE_FAIL"}).points["a"].state == "interrupted"


def test_a_killed_point_is_running_while_its_restarted_job_runs(read_sweep):
    write_note(read_sweep.sweep, "a", "running", "7_0", step=12)
    state = read_sweep(submission(), jobs=[job("7_0", "RUNNING")]).points["a"]
    assert (state.state, state.job, state.step) == ("running", "7_0", 12)


def test_points_without_a_job_have_the_state_of_their_folder(read_sweep):
    write_note(read_sweep.sweep, "b", "failed", None, reason="it broke")
    points = read_sweep().points
    assert points == {"a": State("waiting"), "b": State("failed", "it broke"), "c": State("waiting")}


def test_states_come_from_the_folders_while_slurm_does_not_answer(read_sweep):
    write_note(read_sweep.sweep, "b", "interrupted", "7_1", 1, "SIGUSR1", step=3)
    (read_sweep.sweep.folder / "c").mkdir()
    (read_sweep.sweep.folder / "c" / "results.json").write_text(DONE_RESULTS)
    states = read_sweep(submission(), error="squeue: no")
    assert str(states.slurm_error) == "squeue: no. Fix: wait"
    assert states.points == {
        "a": State("queued", "Slurm does not answer"),
        "b": State("interrupted", "Slurm does not answer", "7_1", 1, 3),
        "c": State("done", None, "7_1"),
    }
    write_note(read_sweep.sweep, "a", "running", "7_0")
    with FileLock(read_sweep.sweep.folder / "a" / ".lock"):
        assert read_sweep(submission(), error="squeue: no").points["a"] == State("running", None, "7_0")


def test_a_submission_without_an_id_is_found_by_its_name(read_sweep):
    points = read_sweep(submission(id=None), jobs=[job("9_1", "PENDING", 0, "Resources")]).points
    assert points["b"] == points["c"] == State("queued", "Resources", "9_1")
    assert points["a"] == State("waiting")


def test_a_submission_that_slurm_never_accepted_is_ignored(read_sweep):
    assert set(read_sweep(submission(id=None)).points.values()) == {State("waiting")}


def test_the_latest_submission_of_a_point_counts(read_sweep):
    first, second = submission(), submission("s.2", "8", [["c", "a"]])
    jobs = [job("7_1", "RUNNING"), job("7_0", "RUNNING"), job("8_0", "PENDING", 0, "Priority", "s.2")]
    points = read_sweep(first, second, jobs=jobs).points
    assert points["a"] == points["c"] == State("queued", "Priority", "8_0")
    assert points["b"] == State("running", "starting", "7_1")


def test_a_note_of_this_process_is_matched_with_its_job(read_sweep, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    point_state.write_state(read_sweep.sweep.folder / "a", "running")
    assert point_state.read_note(read_sweep.sweep.folder / "a").owner.pid == os.getpid()
    with FileLock(read_sweep.sweep.folder / "a" / ".lock"):
        assert read_sweep(submission(), jobs=[job("7_0", "RUNNING", 2)]).points["a"] == State("running", None, "7_0", 2)
    state = read_sweep(submission(), jobs=[job("7_0", "PENDING", 3)]).points["a"]
    assert state == State("queued", None, "7_0", 3)
