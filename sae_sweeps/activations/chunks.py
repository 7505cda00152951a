"""Chunks of shuffled activations. Each chunk can be recomputed from the settings and the index of the chunk alone."""

# N sequences, S positions, D model width, A activations in a chunk

import time
from typing import Protocol

import torch
from torch import Tensor

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.runtime.errors import TrainingError, first_line
from sae_sweeps.runtime.memory import is_out_of_memory
from sae_sweeps.runtime.progress import OnProgress


class Model(Protocol):
    """The method of a language model that `ActivationChunks` calls."""

    def activations(self, tokens_NS: Tensor, on_progress: OnProgress | None = None) -> Tensor:
        """Return the activations (N, S, D) of the sequences `tokens_NS`; `on_progress(done, N)` counts sequences."""


class ActivationChunks:
    """Activations of training text in chunks of `chunk_size` activations.

    Chunk i holds the activations of consecutive sequences, in a random order drawn from the seed and i, so a run that
    resumes at any step sees the same activations as one that was never interrupted. Positions that hold BOS are left
    out: the activation there is the same for every sequence, and in many models very large. Activations that are in
    the cache are not computed again.
    """

    def __init__(
        self,
        model: Model,
        tokens: TokenSource,
        *,
        chunk_size: int,
        seed: int,
        cache: ActivationCache | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Prepare chunks of the training text in `tokens`. Nothing is computed yet.

        seed: for the order of activations inside a chunk
        cache: where activations are looked up and stored; None computes every chunk
        on_progress: called with the number of sequences of a chunk that the model has processed, and their total
        """
        self._model, self._tokens, self._seed, self._on_progress = model, tokens, seed, on_progress
        self.cache = cache
        self.chunk_size = chunk_size
        self.first_position = tokens.dataset.first_position
        per_sequence = tokens.dataset.seq_len - self.first_position
        self.sequences_per_chunk = -(-chunk_size // per_sequence)
        self.seconds = 0.0  # seconds spent on making chunks so far

    def chunk(self, index: int) -> Tensor:
        """Return chunk `index`: shuffled activations (A, D), A = `chunk_size`; on the CPU if they come from the cache.

        Raises: ConfigError if the training text does not fill one sequence; BrokenTextError if the text breaks off;
        TrainingError if the language model runs out of memory.
        """
        began = time.perf_counter()
        tokens_NS = self._tokens.training(index * self.sequences_per_chunk, self.sequences_per_chunk)
        if self.cache is None:
            acts_NSD = self._compute(tokens_NS, index)
        else:
            acts_NSD = self.cache.get(tokens_NS, lambda: self._compute(tokens_NS, index))
        sequences, positions = acts_NSD.shape[0], acts_NSD.shape[1] - self.first_position
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        order_A = torch.randperm(sequences * positions, generator=generator)[: self.chunk_size]
        place_A = order_A // positions * acts_NSD.shape[1] + self.first_position + order_A % positions
        chunk_AD = acts_NSD.flatten(0, 1)[place_A.to(acts_NSD.device)]
        self.seconds += time.perf_counter() - began
        return chunk_AD

    def _compute(self, tokens_NS: Tensor, index: int) -> Tensor:
        """Run the model on the sequences of chunk `index`. Raises: TrainingError if the memory is too small for it."""
        try:
            return self._model.activations(tokens_NS, self._on_progress)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"the language model ran out of memory in chunk {index} of the text, which has {len(tokens_NS)} "
                f"sequences ({first_line(error)}). Fix: lower model.batch_sequences, or train fewer points side by "
                "side (hydra.launcher.max_points), then rerun the command, which resumes every point where it is now"
            ) from error
