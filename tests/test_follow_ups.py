"""Tasks that follow when the points of a sweep are through: run, not run, or failed, and noted."""

import sys
from types import ModuleType

import pytest

from sae_sweeps.follow_ups import follow_up
from sae_sweeps.sweep import Sweep
from tests.conftest import composed


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    """Three points, of which a is done."""
    sweep = Sweep(tmp_path / "sweep")
    sweep.add({name: composed() for name in "abc"})
    finish(sweep, "a")
    return sweep


def finish(sweep: Sweep, *names: str) -> None:
    for name in names:
        (sweep.folder / name).mkdir()
        (sweep.folder / name / "results.json").write_text("{}")


@pytest.fixture
def task(monkeypatch) -> ModuleType:
    """A task `fake` that keeps the sweeps which it was run for."""
    module = ModuleType("sae_sweeps.tasks.fake")
    module.NEEDS_ALL, module.ran_for = True, []

    def run_sweep(sweep):
        module.ran_for.append(sweep)
        return True

    module.run_sweep = run_sweep
    monkeypatch.setitem(sys.modules, "sae_sweeps.tasks.fake", module)
    return module


def test_what_needs_all_points_is_not_run_while_some_are_missing(sweep, task, caplog):
    assert not follow_up("fake", sweep)
    assert task.ran_for == []
    assert sweep.read()["followed"] == {"fake": {"state": "not run", "reason": "not done: b, c", "job": None}}
    assert "not done: b, c" in caplog.text


def test_what_needs_all_points_is_run_when_they_are_there(sweep, task):
    finish(sweep, "b", "c")
    assert follow_up("fake", sweep)
    assert task.ran_for == [sweep]
    assert sweep.read()["followed"] == {"fake": {"state": "done", "reason": None, "job": None}}


def test_what_needs_none_of_them_is_run_in_any_case(sweep, task):
    task.NEEDS_ALL = False
    assert follow_up("fake", sweep)
    assert task.ran_for == [sweep]


def test_one_that_breaks_has_failed_and_says_why(sweep, task, caplog):
    task.NEEDS_ALL = False

    def run_sweep(sweep):
        raise ValueError("no such\n thing")

    task.run_sweep = run_sweep
    assert not follow_up("fake", sweep)
    noted = {"state": "failed", "reason": "ValueError: no such thing", "job": None}
    assert sweep.read()["followed"] == {"fake": noted}
    assert "Traceback" in caplog.text


def test_the_latest_outcome_is_noted_with_its_job(sweep, task, monkeypatch):
    follow_up("fake", sweep)
    finish(sweep, "b", "c")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    follow_up("fake", sweep)
    assert sweep.read()["followed"] == {"fake": {"state": "done", "reason": None, "job": "12_0"}}
    assert list(sweep.read()["points"]) == ["a", "b", "c"]
