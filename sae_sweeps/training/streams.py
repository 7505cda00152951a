"""Where a trainer has its batches from."""

from typing import Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """Where chunks of activations come from: chunk i is the same whenever it is asked for."""

    chunk_size: int

    def chunk(self, index: int) -> Tensor: ...


class TensorStream:
    """Activations that are there already, in shuffled chunks of whole batches; another order in each epoch.

    Chunk i depends on (seed, i) alone. What an epoch's chunks leave over is another remainder in each.
    """

    def __init__(self, x_AD: Tensor, batch_size: int, *, chunk_size: int = 32_768, seed: int = 0) -> None:
        """`chunk_size`: at most so many activations are shuffled together. Raises: ValueError if there are fewer than
        a batch holds."""
        if x_AD.ndim != 2 or not 0 < batch_size <= len(x_AD):
            raise ValueError(f"activations of shape {tuple(x_AD.shape)} do not fill a batch of {batch_size}")
        self._x_AD, self._seed = x_AD, seed
        self.chunk_size = max(1, min(chunk_size, len(x_AD)) // batch_size) * batch_size
        self._chunks = len(x_AD) // self.chunk_size  # of an epoch

    @property
    def d_in(self) -> int:
        return self._x_AD.shape[1]

    def chunk(self, index: int) -> Tensor:
        """(chunk_size, D)"""
        epoch, place = divmod(index, self._chunks)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order_A = torch.randperm(len(self._x_AD), generator=generator)
        return self._x_AD[order_A[place * self.chunk_size :][: self.chunk_size].to(self._x_AD.device)]
