"""A training step in memory of a fixed size, which a GPU repeats as one CUDA graph, without the CPU's part.

The result is that of `Trainer.step`, to the bit. Where a batch does not fit, everything is as it was before it, and the
caller takes the step the usual way.
"""

# B activations in a batch, D model width, F latents

import weakref
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sae_sweeps.runtime.errors import TrainingError
from sae_sweeps.saes import Step, TopKSAE, TrainableSAE
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.sparse import ColumnSparse
from sae_sweeps.saes.step import StepGradients
from sae_sweeps.training.graphs import GRAPHS


class Training(Protocol):
    """What a fixed step needs of a trainer; see `Trainer`."""

    sae: TrainableSAE

    def compute(self, x_BD: Tensor, dead_F: Tensor | None, room: Room | None = None) -> StepGradients:
        """Return the loss of a batch, and what the gradients consist of."""

    def apply(self, found: StepGradients, skipped: Tensor | None = None) -> None:
        """Take Adam's step."""

    def count_dead(self) -> Tensor:
        """Return how many latents count as dead in the next step."""

    def small_state(self) -> list[Tensor]:
        """Return all that a step changes in place, but the large matrices."""

    def infinite_error(self, loss: float) -> TrainingError:
        """Return the error of a step whose loss is not finite."""


@dataclass
class Outcome:
    """What is read from the GPU after a step."""

    overflow: bool  # there was no room for the batch
    infinite: bool  # the loss is not finite
    dead: int  # latents that count as dead in the next step
    entries: int


class FixedStep:
    """The step of a trainer for batches of one size; on a GPU it is captured when it is taken for the second time."""

    def __init__(self, trainer: Training, x_BD: Tensor, entries: int, candidates: int) -> None:
        """Take memory for batches like `x_BD`, for as many entries and candidates of them."""
        self._trainer, self._x_BD = trainer, torch.empty_like(x_BD)
        self.room = Room(entries, candidates, torch.zeros(1, dtype=torch.int32, device=x_BD.device))
        self._scalars_4 = torch.zeros(4, device=x_BD.device)
        self._fired_F = torch.zeros(trainer.sae.dict_size, dtype=torch.bool, device=x_BD.device)
        self._flags_4 = torch.zeros(4, dtype=torch.int32, device=x_BD.device)
        self._host_flags_4 = torch.zeros(4, dtype=torch.int32, pin_memory=x_BD.is_cuda)
        self._small = trainer.small_state()
        self._before = [torch.empty_like(each) for each in self._small]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._was_taken = False

    @property
    def is_captured(self) -> bool:
        """Return whether the step is a CUDA graph."""
        return self._graph is not None

    def fits(self, x_BD: Tensor) -> bool:
        """Return whether a batch has the shape and dtype of this step."""
        return x_BD.shape == self._x_BD.shape and x_BD.dtype == self._x_BD.dtype

    def take(self, x_BD: Tensor) -> tuple[Step, Outcome]:
        """Take a step on raw activations (B, D). After an overflow or an infinite loss the trainer is as before."""
        self._x_BD.copy_(x_BD)
        if self._graph is None and self._was_taken and x_BD.is_cuda:
            self._graph = GRAPHS.capture(self._run)
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        self._was_taken = True
        if x_BD.is_cuda:
            torch.cuda.current_stream().synchronize()
        overflow, infinite, dead, entries = self._host_flags_4.tolist()
        if overflow or infinite:
            torch._foreach_copy_(self._small, self._before)
        loss, mse, l0, aux_loss = self._scalars_4.clone()
        outcome = Outcome(overflow > 0, infinite > 0, dead, entries)
        return Step(loss, mse, l0, aux_loss, self._fired_F.clone()), outcome

    @torch.no_grad()
    def _run(self) -> None:
        """Take the step on the batch in memory, with nothing that waits for the GPU."""
        trainer, overflow_1 = self._trainer, self.room.overflow
        overflow_1.zero_()
        torch._foreach_copy_(self._before, self._small)
        found = trainer.compute(self._x_BD, None, self.room)
        step = found.step
        infinite_1 = (~step.loss.isfinite()).to(torch.int32).view(1)
        trainer.apply(found, overflow_1 + infinite_1)
        dead_1 = trainer.count_dead().to(torch.int32).view(1)
        self._scalars_4.copy_(torch.stack([step.loss, step.mse, step.l0, step.aux_loss]))
        self._fired_F.copy_(step.fired_F)
        assert isinstance(found.entries, ColumnSparse), "a selection in a room returns sparse entries"
        entries_1 = found.entries.start_Fp1[-1:].to(torch.int32)
        self._flags_4.copy_(torch.cat([overflow_1, infinite_1, dead_1, entries_1]))
        self._host_flags_4.copy_(self._flags_4, non_blocking=True)


class FixedSteps:
    """Decides when a trainer has a fixed step, and of which size."""

    STEPS_BEFORE = 4  # steps the usual way, after which the number of entries is known
    SPARE = 1.5  # places per entry of the latest step, where their number varies
    MORE_CANDIDATES = 1.5  # places for candidates per place for an entry, at first
    MOST_CANDIDATES = 12  # the same number, above which no fixed step is tried
    FEWER = 4  # factor by which entries must have become fewer for their places to be made fewer
    BLOCK = 2**30  # upper bounds of a batch at most, 2 GiB

    def __init__(self, trainer: Training) -> None:
        self._trainer = weakref.proxy(trainer)  # a finished trainer gives its memory back at once
        self._step: FixedStep | None = None
        self._outcome: Outcome | None = None  # of the latest step, if it was a fixed one
        self._taken = 0
        self._more = self.MORE_CANDIDATES
        self._overflows = 0  # since the latest step that had room
        self.used_graph = False  # whether the latest step was a repetition of a graph

    def take(self, x_BD: Tensor) -> Step | None:
        """Take a step on raw activations (B, D), if there is a fixed step for them and no latent is dead.

        Returns None if not. Raises: TrainingError if the loss is not finite; the trainer is then as before.
        """
        trainer, step, self.used_graph = self._trainer, self._step, False
        if step is None or not step.fits(x_BD):
            return None
        if trainer.sae.aux_coefficient > 0:
            dead = int(trainer.count_dead()) if self._outcome is None else self._outcome.dead
            if dead > 0:
                return None
        taken, outcome = step.take(x_BD)
        self._outcome = None if outcome.overflow else outcome
        if outcome.overflow:
            self._overflows += 1
            return None
        if outcome.infinite:
            raise trainer.infinite_error(taken.loss.item())
        self._overflows, self.used_graph = 0, step.is_captured
        if self._count_places(len(x_BD)) is None and outcome.entries * self.FEWER < step.room.entries:
            self._step = None
        return taken

    def learn(self, x_BD: Tensor, found: StepGradients) -> None:
        """Take memory for fixed steps after a step of the usual way, or more memory if there was too little."""
        trainer, entries = self._trainer, found.entries
        self._taken, self._outcome = self._taken + 1, None
        if not isinstance(entries, ColumnSparse):
            self._step = None
            return
        if self._taken < self.STEPS_BEFORE:
            return
        if not trainer.sae.fits_room or len(x_BD) * trainer.sae.dict_size > self.BLOCK:
            return
        if self._overflows >= 2:
            self._more, self._overflows, self._step = 2 * self._more, 0, None
        if self._step is not None and len(entries.pre) > self._step.room.entries:
            self._step = None
        if self._step is None and self._more <= self.MOST_CANDIDATES:
            places = self._count_places(len(x_BD)) or _round_up(self.SPARE * len(entries.pre))
            candidates = min(_round_up(self._more * places), len(x_BD) * trainer.sae.dict_size)
            self._step = FixedStep(trainer, x_BD, places, candidates)

    def _count_places(self, batch: int) -> int | None:
        """Return how many entries a batch has, if that is certain."""
        sae = self._trainer.sae
        return min(sae.k, sae.dict_size) * batch if isinstance(sae, TopKSAE) else None


def _round_up(count: float) -> int:
    return -(-int(count) // 4096) * 4096
