"""A capture that fails costs the graph and nothing else."""

import gc
import logging
from contextlib import contextmanager

import pytest
import torch

from sae_sweeps.training.graphs import Graphs


@pytest.fixture
def streams(monkeypatch):
    """Put stand-ins in the place of CUDA's functions; return the streams that are set."""
    found = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "the usual stream")
    monkeypatch.setattr(torch.cuda, "set_stream", found.append)

    @contextmanager
    def capture(graph, pool, capture_error_mode):
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        assert not gc.isenabled()
        yield

    monkeypatch.setattr(torch.cuda, "graph", capture)
    return found


def test_a_graph_is_captured(streams):
    ran = []
    assert Graphs().capture(lambda: ran.append(1)) is not None
    assert ran == [1]
    assert gc.isenabled()
    assert streams == []


def test_after_a_failure_no_graph_is_tried_again(streams, caplog):
    def fail():
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs, ran = Graphs(), []
    with caplog.at_level(logging.WARNING):
        assert graphs.capture(fail) is None
    assert "cannot be captured as CUDA graphs" in caplog.text
    assert "not permitted" in caplog.text
    assert streams == ["the usual stream"]
    assert gc.isenabled()
    assert graphs.capture(lambda: ran.append(1)) is None
    assert ran == []
