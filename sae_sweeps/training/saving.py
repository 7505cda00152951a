"""Saves the points of a pack: at once on a CPU, and on CUDA from a thread while training continues.

On CUDA the state is copied to pinned host memory, and a thread writes the copy, hashes the file and syncs it. On a CPU
the thread would take its time from the steps, and its memory from the pack.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sae_sweeps.runtime.background import Background
from sae_sweeps.runtime.memory import is_out_of_memory
from sae_sweeps.training import checkpoints


class Saver:
    """Writes checkpoints, one at a time and in the order of the calls. One is whole, or not there."""

    def __init__(self, device: torch.device) -> None:
        """Prepare to save states that are on a device."""
        self._device = device
        self._latest: Background[None] | None = None  # the write in progress, or the last one

    def save(self, folder: Path, step: int, state: Mapping[str, Tensor], owner: str) -> Background[None] | None:
        """Write a checkpoint as `checkpoints.save` does, after the one before it is written.

        Returns None if it is written. Otherwise a thread still writes it, from a copy of the state as it is now:
        `result()` of what is returned waits until it is written, or raises the error that prevented it.
        Raises: the errors of `checkpoints.save`, where the checkpoint is written at once.
        """
        if self._latest is not None:
            self._latest.wait()  # its error is for whoever saved it
        copy = copy_to_host(state, self._device) if writes_in_background(self._device) else None
        if copy is None:
            checkpoints.save(folder, step, dict(state), owner)
            return None
        self._latest = Background(partial(checkpoints.save, folder, step, copy, owner))
        return self._latest


def writes_in_background(device: torch.device) -> bool:
    """Return whether checkpoints of states on a device are written in a thread."""
    return device.type == "cuda"


def copy_to_host(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor] | None:
    """Return a copy of tensors in host memory, pinned if they are on CUDA; None if there is no memory for it."""
    is_pinned = device.type == "cuda"
    copies = {}
    try:
        for name, tensor in state.items():
            copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_pinned)
            copies[name].copy_(tensor.detach(), non_blocking=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        if is_pinned:  # the copies are done only then, and those of a failure must not be freed earlier
            torch.cuda.synchronize(device)
    return copies
