"""Follow-up tasks: whether they are done, failed or not run is recorded in sweep.json."""

from types import SimpleNamespace

import pytest

from sae_sweeps.runtime.errors import ConfigError, NotRunError
from sae_sweeps.runtime.signals import Stopped
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import is_done
from sae_sweeps.tasks import follow_ups
from sae_sweeps.tasks.follow_ups import run_follow_up
from tests.commands import DONE_RESULTS
from tests.conftest import composed

CONFIG = composed("stitch.threshold=0.5")


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    """A sweep of the points a, b and c. Only a is done."""
    sweep = Sweep(tmp_path / "sweep")
    sweep.add({name: composed() for name in "abc"})
    finish(sweep, "a")
    return sweep


def finish(sweep: Sweep, *names: str) -> None:
    for name in names:
        (sweep.folder / name).mkdir(exist_ok=True)
        (sweep.folder / name / "results.json").write_text(DONE_RESULTS)


@pytest.fixture
def task(monkeypatch) -> SimpleNamespace:
    """A task `fake` that needs all points and records its calls."""
    fake = SimpleNamespace(ran_for=[])

    def run(sweep, config):
        if missing := [point.name for point in sweep.points() if not is_done(point.folder)]:
            raise NotRunError(f"not done: {', '.join(missing)}")
        fake.ran_for.append((sweep, config))
        return []

    fake.run = run
    monkeypatch.setattr(follow_ups, "load_sweep_task", lambda name: fake.run)
    return fake


def test_a_task_without_its_points_is_not_run_and_names_them(sweep, task, caplog):
    assert not run_follow_up("fake", sweep, CONFIG)
    assert task.ran_for == []
    assert sweep.read()["followed"] == {"fake": {"state": "not run", "reason": "not done: b, c", "job": None}}
    assert "fake: the task was not run: not done: b, c" in caplog.text


def test_a_task_with_all_its_points_runs_with_the_configuration_of_the_command(sweep, task):
    finish(sweep, "b", "c")
    assert run_follow_up("fake", sweep, CONFIG)
    assert task.ran_for == [(sweep, CONFIG)]
    assert sweep.read()["followed"] == {"fake": {"state": "done", "reason": None, "job": None}}


def test_a_report_runs_even_if_no_point_is_done(sweep):
    (sweep.folder / "a" / "results.json").unlink()
    assert run_follow_up("report", sweep, CONFIG)
    assert (sweep.folder / "results.csv").exists()
    assert sweep.read()["followed"] == {"report": {"state": "done", "reason": None, "job": None}}


def test_a_task_that_fails_in_part_is_failed_with_the_reasons(sweep, task, caplog):
    task.run = lambda sweep, config: ["one: it broke", "two: no such thing"]
    assert not run_follow_up("fake", sweep, CONFIG)
    outcome = {"state": "failed", "reason": "one: it broke; two: no such thing", "job": None}
    assert sweep.read()["followed"] == {"fake": outcome}
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("error", "reason", "has_traceback"),
    [
        (ValueError("no such\n thing"), "ValueError: no such thing", True),
        (ConfigError("small", "x", "holds no SAE", "small=FOLDER"), "small=x: holds no SAE. Fix: small=FOLDER", False),
    ],
)
def test_a_task_that_raises_an_error_is_failed_with_the_reason(sweep, task, caplog, error, reason, has_traceback):
    def run(sweep, config):
        raise error

    task.run = run
    assert not run_follow_up("fake", sweep, CONFIG)
    assert sweep.read()["followed"] == {"fake": {"state": "failed", "reason": reason, "job": None}}
    assert ("Traceback" in caplog.text) == has_traceback


def test_a_task_that_a_signal_stops_has_no_outcome(sweep, task):
    def run(sweep, config):
        raise Stopped("SIGUSR1")

    task.run = run
    with pytest.raises(Stopped):
        run_follow_up("fake", sweep, CONFIG)
    assert sweep.read()["followed"] == {}


def test_the_latest_outcome_is_recorded_with_its_job(sweep, task, monkeypatch):
    run_follow_up("fake", sweep, CONFIG)
    finish(sweep, "b", "c")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    run_follow_up("fake", sweep, CONFIG)
    assert sweep.read()["followed"] == {"fake": {"state": "done", "reason": None, "job": "12_0"}}
    assert list(sweep.read()["points"]) == ["a", "b", "c"]


def test_an_outcome_is_recorded_under_its_label(sweep, task):
    for label in ("fake 1 of 2", "fake 2 of 2", "fake 1 of 2"):
        run_follow_up("fake", sweep, CONFIG, label)
    assert list(sweep.read()["followed"]) == ["fake 1 of 2", "fake 2 of 2"]
