"""Only one process trains a point: waiting for its lock, giving up, and losing the point to another process."""

import json
import threading

import pytest
from filelock import FileLock

from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks.point import PointRun
from sae_sweeps.tasks.run_packs import run_packs
from sae_sweeps.training import checkpoints
from tests.commands import DONE_RESULTS
from tests.conftest import composed

OTHER = {"host": "node7", "pid": 77, "job": "12_3", "restarts": 1}


@pytest.fixture
def sweep(tmp_path, tiny, monkeypatch) -> tuple[Sweep, list[Point]]:
    monkeypatch.setattr(point_state, "LOCK_RETRY_SECONDS", 0.05)
    sweep = Sweep(tmp_path / "sweep")
    points = [Point(composed(*tiny, f"k={k}"), sweep.folder / f"k{k}") for k in (3, 4)]
    sweep.add({point.name: point.config for point in points})
    return sweep, points


def take_over(point: Point) -> str:
    """Write a state.json that names another process as the owner. Returns its text."""
    text = json.dumps({"state": "running", "reason": None, "owner": OTHER})
    (point.folder / "state.json").write_text(text)
    return text


def test_a_point_locked_by_another_process_fails_and_is_left_unchanged(sweep):
    sweep, points = sweep
    text = take_over(points[0])
    with FileLock(points[0].folder / ".lock"):
        failures = run_packs(sweep, points, Limits(patience=0.1))
        assert point_state.read_state(points[0].folder).state == "running"
    assert list(failures) == ["k3"]
    assert "another process is training this point (process 77 on node7, job 12_3)" in failures["k3"]
    assert (points[0].folder / "state.json").read_text() == text
    assert point_state.is_done(points[1].folder)


def test_a_point_is_trained_if_another_process_releases_it_in_time(sweep):
    sweep, points = sweep
    lock = FileLock(points[0].folder / ".lock", thread_local=False)
    lock.acquire()
    soon = threading.Timer(0.2, lock.release)
    soon.start()
    assert run_packs(sweep, points, Limits(patience=60)) == {}
    soon.join()
    assert all(point_state.is_done(point.folder) for point in points)


def test_a_point_that_another_process_finished_during_the_wait_is_done(sweep, monkeypatch):
    sweep, points = sweep
    acquire = PointRun._acquire

    def slow(self, patience):
        acquire(self, patience)
        if self.point.name == "k3":
            (self.point.folder / "results.json").write_text(DONE_RESULTS)

    monkeypatch.setattr(PointRun, "_acquire", slow)
    assert run_packs(sweep, points, Limits()) == {}
    assert (points[0].folder / "results.json").read_text() == DONE_RESULTS
    assert not (points[0].folder / "sae").exists()
    assert not point_state.is_locked(points[0].folder)


def test_a_process_that_lost_its_point_saves_nothing_more(sweep, monkeypatch):
    """This happens if a node is unreachable for a while and its locks are released."""
    sweep, points = sweep
    save = checkpoints.save

    def overtaken(folder, step, state, owner):
        save(folder, step, state, owner)
        if folder.parent.name == "k3" and step == 14:
            take_over(points[0])

    monkeypatch.setattr(checkpoints, "save", overtaken)
    failures = run_packs(sweep, points, Limits())
    assert failures == {"k3": "process 77 on node7, job 12_3 has taken over this point"}
    assert checkpoints.newest_step(points[0].folder / "checkpoint") == 14
    assert point_state.read_note(points[0].folder).owner.host == "node7"
    assert point_state.is_done(points[1].folder)
