"""Measures the peak of the memory of training steps and of an evaluation, in a process of its own.

    python -m tests.sweep.memory_peaks '{"folder": "/tmp/x", "cases": [["train", ["sae=topk", "dict_size=8192"]]]}'

prints a line of JSON per case: the bytes by which the peak exceeds the memory before.
"""

# B activations in a batch, D model width, S positions in a sequence, V vocabulary

import ctypes
import gc
import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.config import Config
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer, train
from tests.conftest import composed

D, V = 256, 8000
STEPS = 2  # the first of them searches without a guess, the second has Adam's moments
libc = ctypes.CDLL("libc.so.6")


class Chunks:
    """A stream of random activations in the dtype of the language model."""

    def __init__(self, config: Config) -> None:
        self.chunk_size = config.training.batch_size * config.training.chunk_batches
        self._dtype = getattr(torch, config.model.dtype)

    def chunk(self, index: int) -> torch.Tensor:
        """Return random activations (A, D)."""
        return torch.randn(self.chunk_size, D, generator=torch.Generator().manual_seed(index)).to(self._dtype)


class Model(LanguageModel):
    """A language model that has no blocks above its hook: its logits are random projections of the activations."""

    def __init__(self, config: Config) -> None:
        self.config, self.device, self.hook = config.model, torch.device("cpu"), config.model.hook
        self._bridge: Any = SimpleNamespace(cfg=SimpleNamespace(d_vocab=V, d_model=D))
        self._hooked: Any = SimpleNamespace(
            logits=self._logits, n_layers=0, replacing_blocks=lambda *arguments: nullcontext()
        )
        self._U_DV = torch.randn(D, V)

    def _logits(self, tokens_nS: torch.Tensor, hook: str = "", replace: Any = None) -> torch.Tensor:
        acts_nSD = torch.randn(*tokens_nS.shape, D)
        return (acts_nSD if replace is None else replace(acts_nSD)) @ self._U_DV


def take_steps(config: Config) -> None:
    """Take the first steps of a point, with half of the latents dead, and check its state as before a checkpoint."""
    trainer = Trainer(build_sae(config, D), config.training)
    for _, steps in train([trainer], Chunks(config)):
        for _ in steps:
            trainer.idle_tokens_F[::2] = 10**9
            if trainer.steps_done == STEPS:
                trainer.stopped = True
                break
    trainer.require_finite()


def evaluate_once(config: Config) -> None:
    """Evaluate an SAE after its first steps, whose optimizer's memory is held."""
    trainer, chunk = Trainer(build_sae(config, D), config.training), Chunks(config).chunk(0)
    for x_BD in chunk.split(config.training.batch_size)[:STEPS]:
        trainer.step(x_BD)
    sequences = config.evaluation.tokens // config.dataset.seq_len
    tokens_NS = torch.randint(1, V, (sequences, config.dataset.seq_len))
    acts_NSD = torch.randn(*tokens_NS.shape, D).to(getattr(torch, config.model.dtype))
    data = HeldOut(tokens_NS, acts_NSD, torch.ones_like(tokens_NS).bool(), 0, False, 9.0)
    data.final_NSD = acts_NSD.clone()
    evaluate(trainer.sae, Model(config), data)


def read_status(key: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    found = re.search(rf"^{key}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure(call: Any, config: Config) -> int:
    """Return the bytes by which the peak during `call(config)` exceeds the memory before."""
    gc.collect()
    libc.malloc_trim(0)
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    call(config)
    return read_status("VmHWM") - before


CALLS = {"train": take_steps, "evaluate": evaluate_once}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind, words in json.loads(sys.argv[1]):
        config = composed(*words)
        small = composed(*words, "dict_size=256", "training.batch_size=64", "evaluation.tokens=256")
        CALLS[kind](small)  # loads what torch loads at its first use
        print(json.dumps(measure(CALLS[kind], config)), flush=True)
