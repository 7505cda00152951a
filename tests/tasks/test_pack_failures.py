"""In a pack, what fails fails alone: run in this process, so that anything can be made to break."""

import pytest

from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import point as at_work
from sae_sweeps.tasks import train
from tests.conftest import composed


@pytest.fixture
def points(tmp_path, tiny):
    configs = [composed(*tiny, f"k={k}", "tracking=offline") for k in (3, 4, 5)]
    return [Point(config, tmp_path / f"k{config.k}") for config in configs]


def run(points) -> dict[str, str]:
    outcomes = {}

    def outcome(point, error):
        assert point.name not in outcomes
        outcomes[point.name] = "done" if error is None else str(error)

    train.run(points, Limits(), SweepProgress(len(points)), outcome)
    return outcomes


def breaking(original, name, what):
    def broken(self, *arguments, **options):
        if self.point.name == name:
            raise RuntimeError(what)
        return original(self, *arguments, **options)

    return broken


@pytest.mark.parametrize("method", ["_begin", "train", "finish"])
def test_a_point_that_breaks_anywhere_breaks_alone(points, monkeypatch, method):
    original = getattr(at_work.PointRun, method)
    monkeypatch.setattr(at_work.PointRun, method, breaking(original, "k4", "it broke"))
    assert run(points) == {"k3": "done", "k4": "it broke", "k5": "done"}
    assert "it broke" in (points[1].folder / "launch.log").read_text()
    assert "it broke" not in (points[0].folder / "launch.log").read_text()
    monkeypatch.setattr(at_work.PointRun, method, original)
    assert run(points) == {"k3": "done", "k4": "done", "k5": "done"}  # nothing is locked or lost


def test_a_tracker_that_breaks_takes_no_point(points, monkeypatch):
    start = at_work.start_run

    class Broken:
        def log(self, metrics):
            raise RuntimeError("the service has gone")

        finish = log

    def start_run(tracking, folder, **options):
        return at_work.Run(Broken()) if folder.name == "k3" else start(tracking, folder, **options)

    monkeypatch.setattr(at_work, "start_run", start_run)
    assert run(points) == {"k3": "done", "k4": "done", "k5": "done"}


def test_an_interrupt_lets_go_of_every_point(points, monkeypatch):
    original = at_work.PointRun.train

    def interrupted(self, steps):
        if self.point.name == "k5":
            raise KeyboardInterrupt
        return original(self, steps)

    monkeypatch.setattr(at_work.PointRun, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(points)
    monkeypatch.setattr(at_work.PointRun, "train", original)
    assert set(run(points).values()) == {"done"}


def test_a_point_finished_meanwhile_by_another_process_is_left_as_it_is(points, monkeypatch):
    run(points)
    results = [(point.folder / "results.json").read_bytes() for point in points]
    is_done, not_yet = point_state.is_done, iter([False] * len(points))
    monkeypatch.setattr(point_state, "is_done", lambda folder: next(not_yet, None) is None and is_done(folder))
    assert set(run(points).values()) == {"done"}
    assert results == [(point.folder / "results.json").read_bytes() for point in points]
