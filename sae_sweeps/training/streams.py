"""Streams of activations: the protocol, and a stream of a tensor in memory."""

# A activations in memory, D model width

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import check_names, require_whole, to_activations
from sae_sweeps.saes import Activations


class Stream(Protocol):
    """Source of chunks of activations; the same index always gives the same chunk.

    Activations may be in bfloat16 or float16, which halves a chunk's memory: batches are trained on in float32.
    """

    chunk_size: int  # activations per chunk

    def chunk(self, index: int) -> Tensor:
        """Return the activations of chunk `index`, counted from 0 without end, (chunk_size, D)."""


@runtime_checkable
class HookStream(Stream, Protocol):
    """Source of chunks of activations at several hooks."""

    def chunks(self, index: int, hooks: Sequence[str]) -> Mapping[str, Tensor | ConfigError]:
        """Return chunk `index` of each hook, (chunk_size, D); an error in place of one that cannot be trained on."""


class TensorStream:
    """Stream of activations in memory: shuffled in a new order for each epoch, and cut into chunks of whole batches.

    Chunk i depends on (seed, i) alone. The last activations of an epoch's order, which do not fill a chunk, are left
    out of the epoch.
    """

    @check_names
    def __init__(self, acts: Activations, batch_size: int, *, chunk_size: int = 32_768, seed: int = 0) -> None:
        """Check that `acts` (A, D) fills a batch, and choose the size of chunks.

        acts: a tensor or numpy array; float64 becomes float32, and 16 bits are kept
        A chunk holds as many whole batches as fit into `chunk_size` activations, and at least one.

        Raises: ConfigError if `acts` is not a matrix of finite floating-point numbers, or if `batch_size` is not
        between 1 and A.
        """
        self._x_AD = to_activations("acts", acts)
        count = len(self._x_AD)
        if count == 0:
            raise ConfigError("acts", tuple(self._x_AD.shape), "has no activations", "give some thousands of them")
        batch_size = require_whole("batch_size", batch_size, 1, count, "the number of activations, ")
        self._seed = require_whole("seed", seed, 0)
        self.chunk_size = max(1, min(require_whole("chunk_size", chunk_size, 1), count) // batch_size) * batch_size
        self._chunks = count // self.chunk_size  # chunks per epoch

    def __repr__(self) -> str:
        count, width = self._x_AD.shape
        return f"TensorStream({count} activations, d_in={width}, chunk_size={self.chunk_size})"

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
