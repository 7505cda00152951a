"""Captures what a GPU is given to do as a CUDA graph, which it can repeat without the CPU's part."""

import gc
import logging
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)


class Graphs:
    """All graphs of the process. They run one after another and share their memory: none needs what another left."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._latest: torch.cuda.CUDAGraph | None = None  # keeps the shared memory in use, so that it stays valid
        self._has_failed = False

    def capture(self, run: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
        """Return the graph of a call, which does nothing yet; None if CUDA cannot capture it, or could not before."""
        if self._has_failed:
            return None
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        gc.disable()  # memory that is freed during a capture would end it
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                run()
        except RuntimeError as error:
            self._has_failed = True
            torch.cuda.set_stream(stream)  # a capture that fails may leave its own
            log.warning("steps cannot be captured as CUDA graphs, so their operations are launched singly: %s", error)
            return None
        finally:
            gc.enable()
        self._latest = graph
        return graph


GRAPHS = Graphs()
