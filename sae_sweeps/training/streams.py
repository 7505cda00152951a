"""Streams of activations: the protocol, and a stream of a tensor in memory."""

# A activations in memory, D model width

from typing import Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """Source of chunks of activations; the same index always gives the same chunk.

    Activations may be in bfloat16 or float16, which halves a chunk's memory: batches are trained on in float32.
    """

    chunk_size: int  # activations per chunk

    def chunk(self, index: int) -> Tensor:
        """Return the activations of chunk `index`, counted from 0 without end, (chunk_size, D)."""


class TensorStream:
    """Stream of activations in memory: shuffled in a new order for each epoch, and cut into chunks of whole batches.

    Chunk i depends on (seed, i) alone. The last activations of an epoch's order, which do not fill a chunk, are left
    out of the epoch.
    """

    def __init__(self, x_AD: Tensor, batch_size: int, *, chunk_size: int = 32_768, seed: int = 0) -> None:
        """Check that `x_AD` (A, D) fills a batch, and choose the size of chunks.

        A chunk holds as many whole batches as fit into `chunk_size` activations, and at least one.

        Raises: ValueError if `x_AD` is not a matrix or has numbers that are not finite, or if `batch_size` is not
        between 1 and A.
        """
        if x_AD.ndim != 2 or not 0 < batch_size <= len(x_AD):
            raise ValueError(
                f"activations of shape {tuple(x_AD.shape)} do not fill a batch of {batch_size}: give a matrix of one "
                "activation per row, and a batch size between 1 and the number of rows"
            )
        if not bool((finite := x_AD.isfinite()).all()):
            raise ValueError(f"activations must be finite, but {int((~finite).sum())} of {x_AD.numel()} are not")
        self._x_AD, self._seed = x_AD, seed
        self.chunk_size = max(1, min(chunk_size, len(x_AD)) // batch_size) * batch_size
        self._chunks = len(x_AD) // self.chunk_size  # chunks per epoch

    @property
    def d_in(self) -> int:
        """Return D, the width of the activations."""
        return self._x_AD.shape[1]

    def chunk(self, index: int) -> Tensor:
        """Return the activations of chunk `index`, counted from 0 over all epochs, (chunk_size, D)."""
        epoch, place = divmod(index, self._chunks)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order_A = torch.randperm(len(self._x_AD), generator=generator)
        return self._x_AD[order_A[place * self.chunk_size :][: self.chunk_size].to(self._x_AD.device)]
