"""Checkpoints that a thread writes: whole, in order, one at a time, and of the moment at which they were asked for."""

import threading

import pytest
import torch

from sae_sweeps.training import checkpoints, saving
from sae_sweeps.training.saving import Saver, copy_to_host

CPU = torch.device("cpu")
PATIENCE = 30.0  # seconds until a thread that does not continue fails the test


def state(step: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 2), float(step)), "count": torch.arange(4), "steps_done": torch.tensor(step)}


@pytest.fixture
def in_background(monkeypatch):
    monkeypatch.setattr(saving, "writes_in_background", lambda device: True)


@pytest.fixture
def gate(monkeypatch):
    """Writes wait until the event is set. Its list `began` has the steps that were begun."""
    save, event = checkpoints.save, threading.Event()
    event.began = []

    def gated(folder, step, state, owner):
        event.began.append(step)
        assert event.wait(PATIENCE)
        save(folder, step, state, owner)

    monkeypatch.setattr(checkpoints, "save", gated)
    yield event
    event.set()


def load(folder):
    return checkpoints.load_newest(folder, "one")


def test_on_a_cpu_a_checkpoint_is_written_at_once(tmp_path):
    assert Saver(CPU).save(tmp_path, 3, state(3), "one") is None
    assert int(load(tmp_path)["steps_done"]) == 3


def test_what_is_written_is_the_state_at_the_call(tmp_path, in_background, gate):
    now = state(3)
    writing = Saver(CPU).save(tmp_path / "a", 3, now, "one")
    for tensor in now.values():
        tensor.add_(1)  # the next training step
    assert checkpoints.newest_step(tmp_path / "a") == 0
    gate.set()
    writing.result()
    checkpoints.save(tmp_path / "b", 3, state(3), "one")
    for name in (checkpoints.STATE, checkpoints.CHECKSUM):
        written, expected = (tmp_path / folder / "step-00000003" / name for folder in "ab")
        assert written.read_bytes() == expected.read_bytes()


def test_one_checkpoint_at_a_time_is_written_in_the_order_of_the_calls(tmp_path, in_background, gate):
    saver, writing = Saver(CPU), []

    def save_all():
        for step in (1, 2, 3):
            writing.append(saver.save(tmp_path, step, state(step), "one"))

    caller = threading.Thread(target=save_all)
    caller.start()
    caller.join(0.2)
    assert caller.is_alive()  # the second call waits for the first checkpoint
    assert gate.began == [1]
    gate.set()
    caller.join(PATIENCE)
    writing[-1].result()
    assert gate.began == [1, 2, 3]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003"]


def test_an_error_is_raised_for_whoever_saved_and_for_nobody_else(tmp_path, in_background, monkeypatch):
    saver, save = Saver(CPU), checkpoints.save

    def full(folder, step, state, owner):
        if owner == "two":
            raise OSError(28, "No space left on device")
        save(folder, step, state, owner)

    monkeypatch.setattr(checkpoints, "save", full)
    failed = saver.save(tmp_path, 1, state(1), "two")
    saver.save(tmp_path, 2, state(2), "one").result()
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            failed.result()
    assert int(load(tmp_path)["steps_done"]) == 2


def test_without_memory_for_a_copy_a_checkpoint_is_written_at_once(tmp_path, in_background, monkeypatch):
    def no_memory(*arguments, **options):
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", no_memory)
        assert Saver(CPU).save(tmp_path, 3, state(3), "one") is None
    assert int(load(tmp_path)["steps_done"]) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_copy_is_pinned_and_the_same(tmp_path):
    device = torch.device("cuda")
    there = {name: tensor.to(device) for name, tensor in state(3).items()} | {
        "wide": torch.randn(64, 48, device=device).T
    }
    expected = {name: tensor.cpu() for name, tensor in there.items()}
    copies = copy_to_host(there, device)
    for name, tensor in there.items():
        tensor.zero_()
        assert copies[name].is_pinned()
        assert torch.equal(copies[name], expected[name])
    writing = Saver(device).save(tmp_path, 3, {name: tensor.to(device) for name, tensor in state(3).items()}, "one")
    writing.result()
    assert int(load(tmp_path)["steps_done"]) == 3
