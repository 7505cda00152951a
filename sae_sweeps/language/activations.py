"""The activation stream: chunks of shuffled activations, each recomputable from its number alone."""

# N sequences, S positions, D model width, A activations in a chunk

import torch
from torch import Tensor

from sae_sweeps.language.model import LanguageModel
from sae_sweeps.language.tokens import TokenSource


class ActivationStream:
    """Activations of training text in chunks of `chunk_batches` batches.

    Chunk i holds the activations of one stretch of sequences in an order drawn from (seed, i), so a restart at any step
    sees what an undisturbed run saw. Positions that hold BOS are left out: their activation is the same for every
    sequence, and in many models enormous.
    """

    def __init__(
        self, model: LanguageModel, tokens: TokenSource, *, batch_size: int, chunk_batches: int, seed: int
    ) -> None:
        self._model, self._tokens, self._seed = model, tokens, seed
        self.batch_size, self.chunk_batches = batch_size, chunk_batches
        self.first_position = tokens.dataset.first_position
        per_sequence = tokens.dataset.seq_len - self.first_position
        self.sequences_per_chunk = -(-batch_size * chunk_batches // per_sequence)

    def chunk(self, index: int) -> Tensor:
        """Activations (A, D) of chunk `index`, A = batch_size * chunk_batches, shuffled."""
        tokens_NS = self._tokens.training(index * self.sequences_per_chunk, self.sequences_per_chunk)
        acts_AD = self._model.activations(tokens_NS)[:, self.first_position :].flatten(0, 1)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        order_A = torch.randperm(len(acts_AD), generator=generator)[: self.batch_size * self.chunk_batches]
        return acts_AD[order_A.to(acts_AD.device)]
