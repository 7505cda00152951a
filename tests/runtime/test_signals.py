"""A signal that asks a pack to stop: it may arrive at any moment, and every point is saved between two steps."""

import logging
import os
import signal

import pytest
from filelock import FileLock

from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import point as point_module
from sae_sweeps.tasks import train
from sae_sweeps.tasks.point import PointRun
from sae_sweeps.tasks.run_packs import run_packs
from sae_sweeps.training import checkpoints
from sae_sweeps.training.trainer import Trainer
from tests.conftest import composed

NAMES = ["k3", "k4", "k5"]


def pack(folder, tiny) -> list[Point]:
    return [Point(composed(*tiny, f"k={name[1:]}"), folder / name) for name in NAMES]


def run(points, limits=None) -> dict[str, Exception | None]:
    outcomes: dict[str, Exception | None] = {}
    progress = SweepProgress(len(points))
    train.run(points, limits or Limits(), progress, lambda point, error: outcomes.update({point.name: error}))
    return outcomes


def weights(points) -> list[bytes]:
    return [(point.folder / "sae" / "sae_weights.safetensors").read_bytes() for point in points]


def steps_saved(points) -> list[int]:
    return [checkpoints.newest_step(point.folder / "checkpoint") for point in points]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny) -> list[bytes]:
    """The weights of the pack without a signal."""
    points = pack(tmp_path_factory.mktemp("undisturbed"), tiny)
    assert run(points) == dict.fromkeys(NAMES)
    return weights(points)


@pytest.fixture(autouse=True)
def handler_installed():
    """The handler of SIGUSR1, with no signal received yet."""
    handler = signal.getsignal(signal.SIGUSR1)
    signals.reset()
    signals.install_handlers(signal.SIGUSR1)
    yield
    signals.reset()
    signal.signal(signal.SIGUSR1, handler)


def send_signal_at(patch, owner, method, number, after=False):
    """Send SIGUSR1 to this process at the start or the end (`after`) of that call of a method, counted from 1."""
    original, count = getattr(owner, method), 0

    def wrapped(*arguments, **options):
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGUSR1)
        result = original(*arguments, **options)
        if count == number and after:
            os.kill(os.getpid(), signal.SIGUSR1)
        return result

    patch.setattr(owner, method, wrapped)


# 3 points with 8 chunks of 5 steps each: the call that gets the signal, and the steps that each point has taken then
MOMENTS = {
    "in the first pass of the model": ((ActivationChunks, "chunks", 1), [0, 0, 0]),
    "in a later pass of the model": ((ActivationChunks, "chunks", 3), [10, 10, 10]),
    "after a pass of the model": ((ActivationChunks, "chunks", 3, True), [11, 10, 10]),
    "in a step of the first point": ((Trainer, "step", 15 + 3), [8, 5, 5]),
    "in a step of the second point": ((Trainer, "step", 3 * 15 + 5 + 3), [20, 18, 15]),
    "in the last step of the first point": ((Trainer, "step", 7 * 15 + 5), [40, 35, 35]),
    "just before the first evaluation": ((PointRun, "train", 7 * 3 + 1, True), [40, 35, 35]),
    "just before the last evaluation": ((PointRun, "train", 8 * 3, True), [40, 40, 40]),
    "in the first evaluation": ((PointRun, "finish", 1), [40, 36, 35]),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_pack_saves_every_point_at_a_signal_and_resumes_to_the_same_bytes(
    tmp_path, tiny, undisturbed, monkeypatch, caplog, moment
):
    caplog.set_level(logging.INFO)
    where, steps = MOMENTS[moment]
    points = pack(tmp_path, tiny)
    with monkeypatch.context() as patch:
        send_signal_at(patch, *where)
        with pytest.raises(signals.Stopped, match=r"^SIGUSR1$"):
            run(points)
    assert steps_saved(points) == steps
    for point, step in zip(points, steps, strict=True):
        state = point_state.read_state(point.folder)
        if state.state != "done":
            assert (state.state, state.reason) == ("interrupted", f"stopped by SIGUSR1 at step {step}")
            line = f"{point.name}: SIGUSR1: stopped at step {step} and saved a checkpoint"
            assert line in (point.folder / "launch.log").read_text()
        assert not point_state.is_locked(point.folder)
    done = {"in the first evaluation": 1, "just before the last evaluation": 2}.get(moment, 0)
    assert sum(point_state.is_done(point.folder) for point in points) == done
    signals.reset()
    assert run(points) == dict.fromkeys(NAMES)
    assert weights(points) == undisturbed


def test_a_signal_in_the_last_evaluation_stops_nothing(tmp_path, tiny, undisturbed, monkeypatch):
    points = pack(tmp_path, tiny)
    send_signal_at(monkeypatch, PointRun, "finish", 3)
    assert run(points) == dict.fromkeys(NAMES)
    assert weights(points) == undisturbed


def test_a_signal_before_the_first_point_leaves_all_points_waiting(tmp_path, tiny):
    points = pack(tmp_path, tiny)
    os.kill(os.getpid(), signal.SIGUSR1)
    with pytest.raises(signals.Stopped):
        run(points)
    assert {point_state.read_state(point.folder).state for point in points} == {"waiting"}


def test_a_signal_ends_the_wait_for_the_lock_of_another_process(tmp_path, tiny, monkeypatch):
    points = pack(tmp_path, tiny)
    monkeypatch.setattr(point_state, "LOCK_RETRY_SECONDS", 0.02)
    send_signal_at(monkeypatch, PointRun, "_acquire", 2)
    points[1].folder.mkdir()
    with FileLock(points[1].folder / ".lock"), pytest.raises(signals.Stopped):
        run(points, Limits(patience=1000))
    assert [point_state.read_state(point.folder).state for point in points] == ["interrupted", "waiting", "waiting"]


def test_a_point_that_cannot_be_saved_does_not_prevent_saving_the_others(tmp_path, tiny, undisturbed, monkeypatch):
    points = pack(tmp_path, tiny)
    save = checkpoints.save

    def full(folder, step, state, owner):
        if folder.parent.name == "k3" and step == 8:
            raise OSError(28, "No space left on device")
        save(folder, step, state, owner)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full)
        send_signal_at(patch, Trainer, "step", 15 + 3)
        with pytest.raises(signals.Stopped):
            run(points)
    assert steps_saved(points) == [7, 5, 5]
    signals.reset()
    assert run(points) == dict.fromkeys(NAMES)
    assert weights(points) == undisturbed


def test_sweep_json_lists_points_as_interrupted_and_the_sweep_resumes(tmp_path, tiny, undisturbed, monkeypatch):
    sweep = Sweep(tmp_path / "sweep")
    points = pack(sweep.folder, tiny)
    sweep.add({point.name: point.config for point in points})
    with monkeypatch.context() as patch:
        send_signal_at(patch, PointRun, "finish", 1)
        with pytest.raises(signals.Stopped):
            run_packs(sweep, points, Limits())
    seen = {name: (point["state"], point["reason"]) for name, point in sweep.read()["points"].items()}
    stopped = ("interrupted", "stopped by SIGUSR1")
    assert seen == {"k3": ("done", None), "k4": stopped, "k5": stopped}
    signals.reset()
    assert run_packs(sweep, points, Limits()) == {}
    assert {point["state"] for point in sweep.read()["points"].values()} == {"done"}
    assert weights(points) == undisturbed


def test_the_first_signal_is_named_and_reset_forgets_it():
    signals.raise_if_stopped()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(2):
        with pytest.raises(signals.Stopped, match=r"^SIGUSR1$"):
            signals.raise_if_stopped()
    signals.reset()
    signals.raise_if_stopped()


@pytest.mark.parametrize("method", ["log", "finish"])
def test_an_error_after_the_signal_is_not_a_failure_of_the_point(tmp_path, tiny, monkeypatch, method, undisturbed):
    points = pack(tmp_path, tiny)

    def ended_by_the_signal(self, *_, failed=False):
        if failed:
            return  # called when the run is closed in the end
        os.kill(os.getpid(), signal.SIGUSR1)
        raise ConnectionResetError("Connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(point_module.Run, method, ended_by_the_signal)
        with pytest.raises(signals.Stopped):
            run(points)
    assert not [point for point in points if point_state.read_state(point.folder).state == "failed"]
    signals.reset()
    assert run(points) == dict.fromkeys(NAMES)
    assert weights(points) == undisturbed
