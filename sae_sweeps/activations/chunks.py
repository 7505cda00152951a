"""Chunks of shuffled activations. Each chunk can be recomputed from the settings and the index of the chunk alone."""

# N sequences, S positions, D model width, A activations in a chunk

import functools
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.activations.positions import Positions
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.runtime.background import Background
from sae_sweeps.runtime.devices import read_clock
from sae_sweeps.runtime.errors import ConfigError, TrainingError, first_line
from sae_sweeps.runtime.memory import is_out_of_memory
from sae_sweeps.runtime.progress import OnProgress


class Model(Protocol):
    """The method of a language model that `ActivationChunks` calls."""

    def activations_at(
        self, tokens_NS: Tensor, hooks: Sequence[str], on_progress: OnProgress | None = None
    ) -> dict[str, Tensor]:
        """Return the activations (N, S, D) of the sequences `tokens_NS` at each hook, in one pass of the model.

        `on_progress(done, N)` counts sequences.

        The dtype is float32, or bfloat16 or float16, whose numbers are exact in float32.
        """


class ActivationChunks:
    """Activations of training text in chunks of `chunk_size` activations.

    Chunk i holds the activations of consecutive sequences, in a random order drawn from the seed and i, so a run that
    resumes at any step sees the same activations as one that was never interrupted. Only positions that are data are
    in a chunk (positions.py), so chunk i takes as many sequences as it needs, from the first that chunk i - 1 did not
    take. Activations that are in the cache are not computed again. The tokens of the next chunk can be read in a thread
    (`read_ahead`), and are the same.
    """

    def __init__(
        self,
        model: Model,
        tokens: TokenSource,
        *,
        chunk_size: int,
        seed: int,
        hook: str = "",
        positions: Positions | None = None,
        cache: ActivationCache | None = None,
        check: Callable[[str, Tensor, str], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Prepare chunks of the training text in `tokens`. Nothing is computed yet.

        seed: for the order of activations inside a chunk
        hook: the one whose activations `chunk` returns
        positions: which positions are data; None: all but a prepended BOS
        cache: where activations are looked up and stored; None computes every chunk
        check: called with a hook, its chunk and a phrase for it, to raise an error if it cannot be trained on
        on_progress: called with the number of sequences of a chunk that the model has processed, and their total
        """
        self._model, self._tokens, self._seed, self._on_progress = model, tokens, seed, on_progress
        self.cache, self._check, self._hook = cache, check, hook
        self.chunk_size = chunk_size
        self._positions = positions or Positions(first=tokens.dataset.first_position)
        per_sequence = tokens.dataset.seq_len - self._positions.first
        self.sequences_per_chunk = -(-chunk_size // per_sequence)  # more if positions are left out
        self._starts = [0]  # the first sequence of each chunk that has been read, and of the one after
        self._left_out = [0]  # positions left out in all chunks before each of these
        self._ahead: tuple[int, Background[Tensor]] | None = None  # the chunk whose tokens a thread reads
        self.seconds = 0.0  # seconds spent on making chunks so far
        self.token_seconds = 0.0  # the part of `seconds` in which their tokens were read, or waited for

    def chunk(self, index: int) -> Tensor:
        """Return chunk `index`: shuffled activations (A, D), A = `chunk_size`; on the CPU if they come from the cache.

        The dtype is that of the model's activations: float32, bfloat16 or float16.

        Raises: ConfigError if the training text does not fill one sequence, if all of its positions are left out, or
        if an activation is not finite; BrokenTextError if the text breaks off; TrainingError if the language model runs
        out of memory.
        """
        made = self.chunks(index, [self._hook])[self._hook]
        assert isinstance(made, Tensor), "an error of the only hook is raised"
        return made

    def chunks(self, index: int, hooks: Sequence[str]) -> dict[str, Tensor | ConfigError]:
        """Return chunk `index` of each hook: the same positions in the same order, from one pass of the model.

        Each is what `chunk` returns in a stream of that hook. Activations that cannot be trained on are returned as the
        error. Raises: as `chunk` does; the error of the activations only if no hook is left.
        """
        began = time.perf_counter()
        tokens_NS = self._read_tokens(index)
        self.token_seconds += time.perf_counter() - began
        place_M = self._positions.find(tokens_NS).flatten().nonzero().squeeze(1)  # of M positions that are data
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        place_A = place_M[torch.randperm(len(place_M), generator=generator)[: self.chunk_size]]
        acts = self._read_activations(tokens_NS, hooks, index)
        device = acts[hooks[0]].device
        made: dict[str, Tensor | ConfigError] = {}
        for hook in hooks:
            acts_NSD = acts.pop(hook)  # freed before the activations of the next hook are taken
            made[hook] = self._check_chunk(hook, acts_NSD.flatten(0, 1)[place_A.to(device)], index)
        errors = [found for found in made.values() if isinstance(found, ConfigError)]
        if len(errors) == len(hooks):
            raise errors[0]
        self.seconds += read_clock(device) - began
        return made

    def _check_chunk(self, hook: str, chunk_AD: Tensor, index: int) -> Tensor | ConfigError:
        try:
            if self._check is not None:
                self._check(hook, chunk_AD, f"activations of chunk {index}")
        except ConfigError as error:
            return error
        return chunk_AD

    def _read_activations(self, tokens_NS: Tensor, hooks: Sequence[str], index: int) -> dict[str, Tensor]:
        """Return the activations (N, S, D) at each hook, from the cache or from one pass of the model."""
        read = functools.cache(lambda: self._compute(tokens_NS, hooks, index))
        if (cache := self.cache) is None:
            return read()
        return {hook: cache.get(tokens_NS, functools.partial(lambda hook: read()[hook], hook), hook) for hook in hooks}

    def read_ahead(self, index: int) -> None:
        """Begin to read the tokens of chunk `index` in a thread, while the caller trains on another one.

        Call it for the chunk that is made next. An error of the text is raised when that chunk is made.
        """
        if self._ahead is None and (not self._positions.excluded or index < len(self._starts)):
            self._ahead = index, Background(lambda: self._read(index), is_needed=False)

    def close(self) -> None:
        """Stop reading ahead. The stream can be used again."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def _compute(self, tokens_NS: Tensor, hooks: Sequence[str], index: int) -> dict[str, Tensor]:
        """Run the model on the sequences of chunk `index`. Raises: TrainingError if the memory is too small for it."""
        try:
            return self._model.activations_at(tokens_NS, hooks, self._on_progress)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"the language model ran out of memory in chunk {index} of the text, which has {len(tokens_NS)} "
                f"sequences ({first_line(error)}). Fix: lower model.batch_sequences, for example to 8, or train fewer "
                "points side by side (hydra.launcher.max_points), then rerun the command, which resumes every point "
                "where it is now"
            ) from error

    def count_left_out(self, activations: int) -> int:
        """Return how many positions were left out of the text in which the first `activations` activations are.

        A prepended BOS is not counted. Chunks that have not been made yet are read as tokens, without the model.
        """
        chunks = -(-activations // self.chunk_size)
        self._find_starts(chunks)
        return self._left_out[chunks] if self._positions.excluded else 0

    def _read_tokens(self, index: int) -> Tensor:
        """Return the token ids (N, S) of chunk `index`, after reading those of all chunks before."""
        self._find_starts(index)
        tokens_NS = self._take_ahead(index)
        if tokens_NS is None:
            tokens_NS = self._read(index)
        if self._positions.excluded and index + 1 == len(self._starts):
            self._starts.append(self._starts[index] + len(tokens_NS))
            self._left_out.append(self._left_out[index] + self._positions.count_left_out(tokens_NS))
        return tokens_NS

    def _take_ahead(self, index: int) -> Tensor | None:
        """Return the tokens of chunk `index` if a thread has read them ahead, once it has; None if none has."""
        if self._ahead is None:
            return None
        known, reading = self._ahead
        reading.wait()
        self._ahead = None
        return reading.result() if known == index else None

    def _read(self, index: int) -> Tensor:
        """Read the token ids (N, S) of chunk `index`, whose start is known."""
        if not self._positions.excluded:
            return self._tokens.training(index * self.sequences_per_chunk, self.sequences_per_chunk)
        start = self._starts[index]
        tokens_NS = self._tokens.training(start, self.sequences_per_chunk)
        while (found := int(self._positions.find(tokens_NS).sum())) < self.chunk_size:
            self._positions.require_some(tokens_NS, self._tokens.dataset.exclude)
            more = -(-(self.chunk_size - found) * len(tokens_NS) // found)
            tokens_NS = torch.cat([tokens_NS, self._tokens.training(start + len(tokens_NS), more)])
        return tokens_NS

    def _find_starts(self, index: int) -> None:
        """Read the tokens of all chunks before chunk `index` that have not been read, to know where it starts."""
        if self._positions.excluded:
            while len(self._starts) <= index:
                self._read_tokens(len(self._starts) - 1)
