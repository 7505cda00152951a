"""Packs whose checkpoints a thread writes, as on CUDA, and slowly: signals, Ctrl-C, a full disk and lost points."""

import logging
import threading
import time

import pytest

from sae_sweeps.runtime import signals
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks.point import PointRun
from sae_sweeps.tasks.run_packs import run_packs
from sae_sweeps.training import checkpoints, saving
from sae_sweeps.training.trainer import Trainer
from tests.runtime import test_disk_full as full_disk
from tests.runtime import test_signals
from tests.runtime.test_signals import MOMENTS, NAMES, pack, run, send_signal_at, steps_saved, weights

handler_installed, undisturbed = test_signals.handler_installed, test_signals.undisturbed  # fixtures
SECONDS = 0.05  # that a checkpoint takes


@pytest.fixture(autouse=True)
def slowly_in_background(monkeypatch) -> list[threading.Thread]:
    """Checkpoints are written slowly in threads, which are listed, with `has_saved` once they have."""
    save, threads = checkpoints.save, []

    def slow(folder, step, state, owner):
        threads.append(thread := threading.current_thread())
        time.sleep(SECONDS)
        save(folder, step, state, owner)
        thread.has_saved = True

    monkeypatch.setattr(checkpoints, "save", slow)
    monkeypatch.setattr(saving, "writes_in_background", lambda device: True)
    yield threads
    assert threads
    assert threading.main_thread() not in threads


def saved_in_logs(points) -> list[bool]:
    return ["saved a checkpoint" in (point.folder / "launch.log").read_text() for point in points]


@pytest.mark.parametrize(
    "moment", ["after a pass of the model", "in a step of the second point", "in the first evaluation"]
)
def test_a_signal_is_answered_when_every_point_is_saved(tmp_path, tiny, undisturbed, monkeypatch, caplog, moment):
    caplog.set_level(logging.INFO)
    where, steps = MOMENTS[moment]
    points, write_state, steps_then = pack(tmp_path, tiny), point_state.write_state, {}

    def note(folder, state, reason=None):
        if state == point_state.INTERRUPTED:
            steps_then[folder.name] = checkpoints.newest_step(folder / "checkpoint")
        write_state(folder, state, reason)

    monkeypatch.setattr(point_state, "write_state", note)
    with monkeypatch.context() as patch:
        send_signal_at(patch, *where)
        with pytest.raises(signals.Stopped):
            run(points)
    assert steps_saved(points) == steps
    unfinished = [point.name for point in points if not point_state.is_done(point.folder)]
    assert steps_then == {name: step for name, step in zip(NAMES, steps, strict=True) if name in unfinished}
    assert saved_in_logs(points) == [not point_state.is_done(point.folder) for point in points]
    signals.reset()
    assert run(points) == dict.fromkeys(NAMES)
    assert weights(points) == undisturbed


def test_ctrl_c_in_a_step_ends_when_the_checkpoint_in_progress_is_written(
    tmp_path,
    tiny,
    undisturbed,
    monkeypatch,
    slowly_in_background,
):
    points, step = pack(tmp_path, tiny), Trainer.step

    def interrupted(self, x_BD):
        if self.steps_done == 7:  # the checkpoint of this step is being written
            raise KeyboardInterrupt
        return step(self, x_BD)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(points)
    assert steps_saved(points) == [7, 0, 0]
    assert not any(point_state.is_locked(point.folder) for point in points)
    assert run(points) == dict.fromkeys(NAMES)
    assert weights(points) == undisturbed


@pytest.mark.parametrize("function", ["save", "save_file"])
def test_a_point_that_cannot_be_saved_fails_alone(tmp_path, tiny, undisturbed, monkeypatch, function):
    sweep, points = full_disk.sweep_in(tmp_path, tiny)
    with monkeypatch.context() as patch:
        full_disk.break_saving(patch, function, full_disk.FULL)
        failures = run_packs(sweep, points, Limits())
    assert list(failures) == ["k4"]
    assert failures["k4"].startswith("the disk is full")
    assert checkpoints.newest_step(points[1].folder / "checkpoint") == 14
    assert [point_state.is_done(point.folder) for point in points] == [True, False, True]
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


def test_the_last_checkpoint_is_a_part_of_a_finished_point(tmp_path, tiny, monkeypatch):
    save = checkpoints.save

    def full(folder, step, state, owner):
        if folder.parent.name == "k4" and step == 40:
            raise full_disk.FULL
        save(folder, step, state, owner)

    points = pack(tmp_path, tiny)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full)
        outcomes = run(points)
    assert [name for name, error in outcomes.items() if error is not None] == ["k4"]
    assert not (points[1].folder / "sae").exists()
    assert not point_state.is_done(points[1].folder)
    assert steps_saved(points) == [40, 35, 40]
    assert run(points) == dict.fromkeys(NAMES)


def test_a_lock_is_released_after_the_last_write(tmp_path, tiny, monkeypatch, slowly_in_background):
    train = PointRun.train

    def broken(self, steps):
        train(self, steps)
        if self.trainer.steps_done >= 7:
            raise RuntimeError("it broke")  # soon after a checkpoint was begun

    points = pack(tmp_path, tiny)
    with monkeypatch.context() as patch:
        patch.setattr(PointRun, "train", broken)
        outcomes = run(points)
    assert {str(error) for error in outcomes.values()} == {"it broke"}
    assert steps_saved(points) == [7, 7, 7]
    assert all(getattr(thread, "has_saved", False) for thread in slowly_in_background)
