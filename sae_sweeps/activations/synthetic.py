"""The source of synthetic activations, which stands in the place of a language model and its text."""

# A activations, D width, G planted features

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.planted import Drawn, PlantedDictionary, Truth
from sae_sweeps.activations.units import BLOCK, Units
from sae_sweeps.config import Config
from sae_sweeps.runtime.devices import read_clock
from sae_sweeps.runtime.progress import OnProgress

FOLDER = "planted"  # in a sweep's folder: the planted dictionaries
UNITS = 512  # blocks of held-out activations at most, of which metrics are bootstrapped
READ = 4096  # activations in a batch of `held_out_text_at`


class SyntheticChunks:
    """Synthetic activations in chunks of `chunk_size`: chunk i has the activations from number i * chunk_size.

    They are drawn one after another, so there is nothing to shuffle, and a run that resumes sees the same ones.
    """

    cache = None  # drawing is as fast as reading
    token_seconds = 0.0  # there are no tokens to wait for

    def __init__(
        self, planted: PlantedDictionary, chunk_size: int, seed: int, hook: str, on_progress: OnProgress | None = None
    ) -> None:
        """Prepare chunks. `seed`: which activations are drawn; on_progress: called with (done, chunk_size) activations

        hook: the name under which `chunks` returns them
        """
        self._planted, self._hook, self._on_progress = planted, hook, on_progress
        self._seed, self.chunk_size, self.seconds = seed, chunk_size, 0.0

    def chunk(self, index: int) -> Tensor:
        """Return the activations of chunk `index` (A, D) in float32, A = `chunk_size`."""
        began = time.perf_counter()
        what = f"training of dictionary {self._planted.settings.seed}"
        acts_AD = self._planted.draw(self._seed, what, index * self.chunk_size, self.chunk_size).acts_AD
        self.seconds += read_clock(acts_AD.device) - began
        if self._on_progress is not None:
            self._on_progress(self.chunk_size, self.chunk_size)
        return acts_AD

    def chunks(self, index: int, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Return chunk `index` under the name of each hook; there is only one."""
        return dict.fromkeys(hooks, self.chunk(index))

    def read_ahead(self, index: int) -> None:
        """Accept what `ActivationChunks` accepts; there is no text to read."""

    def count_left_out(self, activations: int) -> int:
        """Return 0: no position is left out."""
        return 0

    def close(self) -> None:
        """End the reading ahead, of which there is none."""


class SyntheticSource:
    """The activations of a planted dictionary, to train and to measure on. `model` is None: there is none."""

    model = None

    def __init__(self, config: Config, device: torch.device) -> None:
        """Draw the planted dictionary of a configuration with dataset=synthetic."""
        self.device, self._hook = device, config.model.hook
        self.planted = PlantedDictionary(config.synthetic, device)
        self._data_seed = config.dataset.seed
        self._held_out: dict[int, HeldOut] = {}

    def at(self, hook: str) -> "SyntheticSource":
        """Return this source: a planted dictionary has no hooks."""
        return self

    @property
    def d_in(self) -> int:
        """Return the width of an activation, D."""
        return self.planted.settings.dim

    def stream(self, config: Config, on_progress: OnProgress | None = None) -> SyntheticChunks:
        """Return the chunks of activations that the SAE of a configuration is trained on."""
        chunk_size = config.training.batch_size * config.training.chunk_batches
        return SyntheticChunks(self.planted, chunk_size, self._data_seed, self._hook, on_progress)

    def held_out(self, activations: int) -> HeldOut:
        """Return held-out activations, each a sequence of its own, with the planted features that are active in them.

        They are drawn once for each number. All numbers begin with the same activations.
        """
        if activations not in self._held_out:
            self._held_out[activations] = _make_held_out(self.planted, self._draw_held_out(0, activations))
        return self._held_out[activations]

    def _draw_held_out(self, first: int, count: int) -> Drawn:
        return self.planted.draw(self.planted.settings.seed, "held-out", first, count)

    def held_out_text_at(
        self, hooks: Sequence[str], activations: int, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield batches of held-out activations, as `ActivationSource` does: tokens (n, 1), all 0, and (n, D) by hook.

        on_progress: called with the number of activations that are done, and `activations`
        """
        for first in range(0, activations, READ):
            acts_nD = self._draw_held_out(first, min(READ, activations - first)).acts_AD
            yield torch.zeros(len(acts_nD), 1, dtype=torch.int64), dict.fromkeys(hooks, acts_nD)
            if on_progress is not None:
                on_progress(first + len(acts_nD), activations)

    def held_out_text(self, activations: int, on_progress: OnProgress | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what `held_out_text_at` does, for the only hook."""
        for tokens_n1, acts in self.held_out_text_at([self._hook], activations, on_progress):
            yield tokens_n1, acts[self._hook]

    def save(self, sweep: Path) -> None:
        """Write the planted dictionary and its settings into the folder of a sweep, named by a hash of the settings."""
        identity = json.dumps(vars(self.planted.settings), sort_keys=True)
        self.planted.save(sweep / FOLDER / hashlib.sha256(identity.encode()).hexdigest()[:8])


def _make_held_out(planted: PlantedDictionary, drawn: Drawn) -> HeldOut:
    """Return activations as `HeldOut`, with one position per sequence, and no cross-entropies."""
    count = len(drawn.acts_AD)
    unit_N1 = torch.arange(count)[:, None] // -(-count // UNITS)
    identity = json.dumps([vars(planted.settings), count, planted.device.type], sort_keys=True)
    units = Units(BLOCK, unit_N1, int(unit_N1.max()) + 1, hashlib.sha256(identity.encode()).hexdigest())
    is_data_N1 = torch.ones(count, 1, dtype=torch.bool)
    tokens_N1 = torch.zeros(count, 1, dtype=torch.int64)
    data = HeldOut(tokens_N1, drawn.acts_AD[:, None], is_data_N1, 0, from_hook=False, ce=math.nan, units=units)
    data.truth = Truth(planted.W_GD, drawn.row_N, drawn.feature_N)
    return data
