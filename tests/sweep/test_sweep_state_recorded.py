"""What is to be seen of a whole sweep: several submissions, lost ones, points without a job, a silent Slurm."""

import os

import pytest
from filelock import FileLock

from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point_state import State
from tests.sweep.conftest import job, notes, submission


@pytest.mark.parametrize("present", [[], [job("7_0", "RUNNING")], [job("7_0", "COMPLETED")]])
def test_a_point_with_results_is_done_whatever_slurm_says(see, present):
    notes(see.sweep, "a", "running", "7_0")
    (see.sweep.folder / "a" / "results.json").write_text("{}")
    assert see(submission(), jobs=present).points["a"] == State("done", None, "7_0")


def test_a_process_that_has_outlived_its_job_is_at_work(see):
    notes(see.sweep, "a", "running", "7_0", step=12)
    with FileLock(see.sweep.folder / "a" / ".lock"):
        assert see(submission(), ended={"7_0": "NODE_FAIL"}).points["a"] == State("running", None, "7_0", 0, 12)
    assert see(submission(), ended={"7_0": "NODE_FAIL"}).points["a"].state == "interrupted"


def test_a_job_that_is_to_begin_a_killed_command_again_is_under_way(see):
    notes(see.sweep, "a", "running", "7_0", step=12)
    seen = see(submission(), jobs=[job("7_0", "RUNNING")]).points["a"]
    assert (seen.state, seen.job, seen.step) == ("running", "7_0", 12)


def test_points_without_a_job_are_what_their_folders_say(see):
    notes(see.sweep, "b", "failed", None, reason="it broke")
    points = see().points
    assert points == {"a": State("waiting"), "b": State("failed", "it broke"), "c": State("waiting")}


def test_where_slurm_does_not_answer_the_folders_tell(see):
    notes(see.sweep, "b", "interrupted", "7_1", 1, "SIGUSR1", step=3)
    (see.sweep.folder / "c").mkdir()
    (see.sweep.folder / "c" / "results.json").write_text("{}")
    seen = see(submission(), error="squeue: no")
    assert seen.slurm_error == "squeue: no"
    assert seen.points == {
        "a": State("queued", "Slurm does not answer"),
        "b": State("interrupted", "Slurm does not answer", "7_1", 1, 3),
        "c": State("done", None, "7_1"),
    }
    notes(see.sweep, "a", "running", "7_0")
    with FileLock(see.sweep.folder / "a" / ".lock"):
        assert see(submission(), error="squeue: no").points["a"] == State("running", None, "7_0")


def test_a_submission_without_an_id_is_found_by_its_name(see):
    points = see(submission(id=None), jobs=[job("9_1", "PENDING", 0, "Resources")]).points
    assert points["b"] == points["c"] == State("queued", "Resources", "9_1")
    assert points["a"] == State("waiting")


def test_a_submission_that_slurm_never_had_is_as_if_it_had_not_been(see):
    assert set(see(submission(id=None)).points.values()) == {State("waiting")}


def test_the_latest_submission_of_a_point_counts(see):
    first, second = submission(), submission("s.2", "8", [["c", "a"]])
    jobs = [job("7_1", "RUNNING"), job("7_0", "RUNNING"), job("8_0", "PENDING", 0, "Priority", "s.2")]
    points = see(first, second, jobs=jobs).points
    assert points["a"] == points["c"] == State("queued", "Priority", "8_0")
    assert points["b"] == State("running", "starting", "7_1")


def test_a_sweeps_own_processes_note_what_is_seen(see, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    point_state.write_state(see.sweep.folder / "a", "running")
    assert point_state.read_note(see.sweep.folder / "a").owner.pid == os.getpid()
    with FileLock(see.sweep.folder / "a" / ".lock"):
        assert see(submission(), jobs=[job("7_0", "RUNNING", 2)]).points["a"] == State("running", None, "7_0", 2)
    seen = see(submission(), jobs=[job("7_0", "PENDING", 3)]).points["a"]
    assert seen == State("queued", None, "7_0", 3)
