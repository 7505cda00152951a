"""Streams of activations: the protocol, and a stream of a tensor in memory."""

from typing import Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """Source of chunks of activations; a chunk is the same every time that it is requested."""

    chunk_size: int

    def chunk(self, index: int) -> Tensor:
        """Return chunk `index`, (chunk_size, D)."""


class TensorStream:
    """Activations in memory, in shuffled chunks of whole batches, in another order in each epoch.

    Chunk i depends on (seed, i) alone. Activations that do not fill a chunk are left out, others in each epoch.
    """

    def __init__(self, x_AD: Tensor, batch_size: int, *, chunk_size: int = 32_768, seed: int = 0) -> None:
        """Check the shape of `x_AD`, and choose the chunk size: at most `chunk_size`, in whole batches.

        Raises: ValueError if there are fewer activations than a batch holds.
        """
        if x_AD.ndim != 2 or not 0 < batch_size <= len(x_AD):
            raise ValueError(f"activations of shape {tuple(x_AD.shape)} do not fill a batch of {batch_size}")
        self._x_AD, self._seed = x_AD, seed
        self.chunk_size = max(1, min(chunk_size, len(x_AD)) // batch_size) * batch_size
        self._chunks = len(x_AD) // self.chunk_size  # per epoch

    @property
    def d_in(self) -> int:
        """Return the width D of the activations."""
        return self._x_AD.shape[1]

    def chunk(self, index: int) -> Tensor:
        """Return chunk `index`, (chunk_size, D)."""
        epoch, place = divmod(index, self._chunks)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order_A = torch.randperm(len(self._x_AD), generator=generator)
        return self._x_AD[order_A[place * self.chunk_size :][: self.chunk_size].to(self._x_AD.device)]
