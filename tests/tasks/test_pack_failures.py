"""Errors in a pack: each fails one point alone. The pack runs in this process, so that any function can be broken."""

import pytest

from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import point as point_module
from sae_sweeps.tasks import train
from tests.conftest import composed


@pytest.fixture
def points(tmp_path, tiny):
    configs = [composed(*tiny, f"k={k}", "tracking=offline") for k in (3, 4, 5)]
    return [Point(config, tmp_path / f"k{config.k}") for config in configs]


def run(points) -> dict[str, str]:
    outcomes = {}

    def on_finished(point, error):
        assert point.name not in outcomes
        outcomes[point.name] = "done" if error is None else str(error)

    train.run(points, Limits(), SweepProgress(len(points)), on_finished)
    return outcomes


def broken_for(name, original, message):
    """A method that raises an error for the point with this name, and else is the original."""

    def broken(self, *arguments, **options):
        if self.point.name == name:
            raise RuntimeError(message)
        return original(self, *arguments, **options)

    return broken


@pytest.mark.parametrize("method", ["_begin", "train", "finish"])
def test_an_error_in_any_stage_of_a_point_fails_that_point_alone(points, monkeypatch, method):
    original = getattr(point_module.PointRun, method)
    monkeypatch.setattr(point_module.PointRun, method, broken_for("k4", original, "it broke"))
    assert run(points) == {"k3": "done", "k4": "it broke", "k5": "done"}
    assert "it broke" in (points[1].folder / "launch.log").read_text()
    assert "it broke" not in (points[0].folder / "launch.log").read_text()
    monkeypatch.setattr(point_module.PointRun, method, original)
    assert run(points) == {"k3": "done", "k4": "done", "k5": "done"}  # all locks are released, no state is lost


def test_a_folder_that_is_lost_fails_that_point_alone(points, monkeypatch):
    original = point_module.PointRun.train

    def lose(self, steps):
        if self.point.name == "k4":
            self.point.folder.rename(self.point.folder.with_name("moved"))
            self.point.folder.mkdir()
        return original(self, steps)

    monkeypatch.setattr(point_module.PointRun, "train", lose)
    outcomes = run(points)
    assert "was replaced by another one while it was in use" in outcomes.pop("k4")
    assert outcomes == {"k3": "done", "k5": "done"}
    assert not list(points[1].folder.iterdir())


def test_an_error_of_wandb_fails_no_point(points, monkeypatch):
    start = point_module.start_point_run

    class Broken:
        def log(self, metrics):
            raise RuntimeError("the service is gone")

        finish = log

    def start_point_run(point, *arguments):
        return point_module.Run(Broken()) if point.name == "k3" else start(point, *arguments)

    monkeypatch.setattr(point_module, "start_point_run", start_point_run)
    assert run(points) == {"k3": "done", "k4": "done", "k5": "done"}


def test_ctrl_c_releases_the_locks_of_all_points(points, monkeypatch):
    original = point_module.PointRun.train

    def interrupted(self, steps):
        if self.point.name == "k5":
            raise KeyboardInterrupt
        return original(self, steps)

    monkeypatch.setattr(point_module.PointRun, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(points)
    monkeypatch.setattr(point_module.PointRun, "train", original)
    assert set(run(points).values()) == {"done"}


def test_a_point_that_another_process_has_finished_in_the_meantime_is_skipped(points, monkeypatch):
    run(points)
    results = [(point.folder / "results.json").read_bytes() for point in points]
    is_done, not_yet = point_state.is_done, iter([False] * len(points))
    monkeypatch.setattr(point_state, "is_done", lambda folder: next(not_yet, None) is None and is_done(folder))
    assert set(run(points).values()) == {"done"}
    assert results == [(point.folder / "results.json").read_bytes() for point in points]
