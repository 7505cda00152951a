"""A pack reads the tokens of its next chunk while it trains, and is the same to the byte."""

import threading

import pytest

from sae_sweeps.activations import source
from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.training.trainer import Trainer
from tests.runtime.test_signals import NAMES, pack, run, weights

PATIENCE = 60.0  # seconds until a thread that does not start fails the test


@pytest.fixture(autouse=True)
def new_source(monkeypatch):
    """Points load the model and the text again, as in another process."""
    monkeypatch.setattr(source, "_latest", {})


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_the_next_chunk_is_read_while_the_first_is_trained_on(tmp_path, tiny, monkeypatch, streaming):
    words = [*tiny, f"dataset.streaming={streaming}"]
    with monkeypatch.context() as patch:
        patch.setattr(ActivationChunks, "read_ahead", lambda self, index: None)
        plain = pack(tmp_path / "plain", words)
        assert run(plain) == dict.fromkeys(NAMES)
    is_read, read, threads = threading.Event(), TokenSource.training, []
    step, waits = Trainer.step, []

    def watched(self, start, count):
        tokens = read(self, start, count)
        if threading.current_thread() is not threading.main_thread():
            threads.append(threading.current_thread())
            is_read.set()
        return tokens

    def waiting(self, x_BD):
        if self.steps_done == 0:  # of the first chunk, before any training
            waits.append(is_read.wait(PATIENCE))
        return step(self, x_BD)

    monkeypatch.setattr(source, "_latest", {})
    monkeypatch.setattr(TokenSource, "training", watched)
    monkeypatch.setattr(Trainer, "step", waiting)
    points = pack(tmp_path / "ahead", words)
    assert run(points) == dict.fromkeys(NAMES)
    assert waits == [True] * 3
    assert len(set(threads)) == 7  # one for each of 8 chunks but the first
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert weights(points) == weights(plain)


def test_a_pack_whose_points_all_fail_leaves_no_thread(tmp_path, tiny, monkeypatch):
    began, threads = threading.Event(), []
    read = TokenSource.training

    def endless(self, start, count):
        if threading.current_thread() is threading.main_thread():
            return read(self, start, count)
        threads.append(threading.current_thread())
        began.set()
        return [read(self, index, 1) for index in range(10**9)]

    def broken(self, x_BD):
        assert began.wait(PATIENCE)
        raise RuntimeError("it broke")

    monkeypatch.setattr(TokenSource, "training", endless)
    monkeypatch.setattr(Trainer, "step", broken)
    points = pack(tmp_path, [*tiny, "dataset.streaming=true"])
    outcomes = run(points)
    assert {name: str(error) for name, error in outcomes.items()} == dict.fromkeys(NAMES, "it broke")
    (thread,) = threads
    thread.join(PATIENCE)
    assert not thread.is_alive()
