"""The tokens of the next chunk are read in a thread: the same chunks, the same errors, and no thread that stays."""

import threading
import time

import pytest
import torch

from sae_sweeps.activations import reopening
from sae_sweeps.activations.reopening import ReopenedRows, take_row
from sae_sweeps.runtime.background import Background, raise_if_cancelled
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.signals import Stopped
from tests.activations.test_positions import SEPARATOR, chunks


def stop_after(stream, index):
    """Return what reads sequences: as before, but the text breaks off in chunk `index`, once."""
    reading, first = stream._tokens.training, index * stream.sequences_per_chunk
    broken = [True]

    def read(start, count):
        if start + count > first and broken:
            broken.pop()
            raise ConfigError("dataset.files", "x", "broken", "mend it")
        return reading(start, count)

    return read


@pytest.mark.parametrize("excluded", [(SEPARATOR,), ()])
@pytest.mark.parametrize("streaming", [False, True])
def test_chunks_are_those_of_reading_one_by_one(tmp_path, streaming, excluded):
    ahead, plain = (chunks(tmp_path, words=3, streaming=streaming, excluded=excluded) for _ in range(2))
    for index, following in ((0, 1), (1, 2), (2, 3), (5, 6), (6, 1), (1, 40), (4, 5)):  # to chunks not read ahead, too
        assert torch.equal(ahead.chunk(index), plain.chunk(index))
        ahead.read_ahead(following)
    ahead.close()
    assert ahead.count_left_out(7 * 24) == plain.count_left_out(7 * 24)
    assert torch.equal(ahead.chunk(5), plain.chunk(5))  # after reading ahead was ended


def test_a_thread_reads_one_chunk_and_nothing_after_it(tmp_path, monkeypatch):
    stream = chunks(tmp_path, words=3, streaming=True)
    read, reading = [], stream._tokens.training

    def record(start, count):
        read.append((threading.current_thread() is threading.main_thread(), start))
        return reading(start, count)

    monkeypatch.setattr(stream._tokens, "training", record)
    stream.chunk(0)
    known = len(read)
    for _ in range(3):
        stream.read_ahead(1)
    stream._ahead[1].wait()
    ahead = read[known:]
    assert ahead[0] == (False, stream._starts[1])
    assert [is_main for is_main, _ in ahead] == [False] * len(ahead)
    stream.chunk(1)
    assert len(read) == known + len(ahead)


@pytest.mark.parametrize("excluded", [(SEPARATOR,), ()])
def test_an_error_of_the_text_is_raised_by_the_chunk_that_needs_the_text(tmp_path, monkeypatch, excluded):
    stream, plain = (chunks(tmp_path, words=29, streaming=True, excluded=excluded) for _ in range(2))
    stream.chunk(0)
    monkeypatch.setattr(stream._tokens, "training", stop_after(stream, 2))
    stream.read_ahead(1)
    stream.chunk(1)
    stream.read_ahead(2)
    with pytest.raises(ConfigError, match=r"^dataset\.files=x: broken\. Fix: mend it$"):
        stream.chunk(2)
    assert torch.equal(stream.chunk(2), plain.chunk(2))


def test_a_thread_that_waits_for_the_network_ends_when_the_stream_is_closed(tmp_path, monkeypatch):
    stream = chunks(tmp_path, words=3, streaming=True)
    waiting, pause, ends = threading.Event(), reopening.pause, []

    def rows():
        raise ConnectionError("no route")
        yield

    def note(seconds):
        waiting.set()
        pause(seconds)

    def read(start, count):
        try:
            return list(ReopenedRows(lambda: rows(), take_row, "the/set", 1000))
        except BaseException as error:
            ends.append(error)
            raise

    monkeypatch.setattr(reopening, "pause", note)
    monkeypatch.setattr(reopening, "FIRST_WAIT", 60)
    stream.chunk(0)
    with monkeypatch.context() as patch:
        patch.setattr(stream._tokens, "training", read)
        stream.read_ahead(1)
        assert waiting.wait(10)
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 3
    assert [type(error) for error in ends] == [Stopped]
    assert torch.equal(stream.chunk(1), chunks(tmp_path, words=3, streaming=True).chunk(1))


def test_a_thread_in_the_middle_of_a_text_ends_when_the_stream_is_closed(tmp_path):
    stream = chunks(tmp_path, words=3, streaming=True)
    stream.chunk(0)
    stream.sequences_per_chunk = 10**9  # the text is read again and again, without end
    stream.read_ahead(1)
    reading = stream._ahead[1]
    time.sleep(0.05)
    assert not reading._ended.is_set()
    stream.close()
    with pytest.raises(Stopped):
        reading.result()


def test_ctrl_c_while_a_chunk_is_waited_for_leaves_the_thread_to_be_ended(tmp_path, monkeypatch):
    stream = chunks(tmp_path, words=3)
    stream.chunk(0)
    stream.read_ahead(1)
    reading = stream._ahead[1]

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reading, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.chunk(1)
    assert stream._ahead[1] is reading
    stream.close()
    assert reading._ended.is_set()


def test_a_background_call_returns_raises_and_is_cancelled():
    assert Background(lambda: 3).result() == 3
    failed = Background(lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failed.result()

    def endless():
        while True:
            raise_if_cancelled()
            time.sleep(0.001)

    call = Background(endless)
    call.cancel()
    with pytest.raises(Stopped):
        call.result()
    raise_if_cancelled()  # another thread is not cancelled
