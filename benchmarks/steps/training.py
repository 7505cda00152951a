"""Shared by the scripts that train an SAE with another library: the spec, the activations, the learning rate.

It needs nothing but torch, safetensors and the standard library, so that it works in the environment of any library.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def read(argv: list[str]) -> dict[str, Any]:
    """Return the spec, a JSON object, and set torch's threads and seed."""
    spec = json.loads(argv[1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    return spec


def read_batches(spec: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the batches (B, D) in their order."""
    yield from load_file(spec["activations"])["x"].split(spec["batch"])


def schedule(spec: dict[str, Any]) -> Callable[[int], float]:
    """Return the factor of the learning rate at a step: it rises in the warm-up, and falls to 0 in the last steps."""
    steps, warmup, decay = spec["steps"], spec["warmup_steps"], spec["decay_steps"]

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / (warmup + 1), (steps - step) / max(decay, 1))

    return factor
