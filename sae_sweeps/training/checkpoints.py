"""Resumable states: each complete or absent, checksummed, the newest two kept. Safetensors only.

checkpoint/step-00000200/state.safetensors     every tensor of the state
checkpoint/step-00000200/state.sha256          its checksum, as `sha256sum -c` reads it
"""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweeps.runtime.files import sha256, sync

if TYPE_CHECKING:  # torch takes a second to import, and which states there are can be told without it
    from torch import Tensor

log = logging.getLogger(__name__)

KEPT = 2
STATE, CHECKSUM = "state.safetensors", "state.sha256"


def save(folder: Path, step: int, state: dict[str, "Tensor"]) -> None:
    """Write the state of `step` whole, then remove all but the newest states.

    A state appears under its name only when it is on the disk: it is written beside it and renamed. One that cannot be
    written, on a full disk say, leaves nothing of itself behind.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{step:08d}"
    partial = folder / f".partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, partial / STATE)
        (partial / CHECKSUM).write_text(_checksum_line(partial / STATE))
        for file in (partial / STATE, partial / CHECKSUM, partial):
            sync(file)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)  # left by a run that this one overtakes
    partial.rename(target)
    sync(folder)
    for old in _steps(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_newest(folder: Path) -> "dict[str, Tensor] | None":
    """The newest state that is intact, or None. A damaged one is passed over with a warning and removed."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for leftover in folder.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    damaged = False
    for candidate in reversed(_steps(folder)):
        try:
            if (candidate / CHECKSUM).read_text() != _checksum_line(candidate / STATE):
                raise ValueError("its checksum does not match")
            state = load_file(candidate / STATE)
            if damaged:
                log.warning("falling back to an older state, %s", candidate.name)
            return state
        except (FileNotFoundError, ValueError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s)", candidate, error)
            shutil.rmtree(candidate)
            damaged = True
    if damaged:
        log.warning("there is no older state to fall back to; starting from the beginning")
    return None


def newest_step(folder: Path) -> int:
    """The step of the newest state, as its name tells; 0 if there is none."""
    steps = _steps(folder)
    return int(steps[-1].name.removeprefix("step-")) if steps else 0


def _steps(folder: Path) -> list[Path]:
    """The states in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if re.fullmatch(r"step-\d{8,}", entry.name))


def _checksum_line(file: Path) -> str:
    return f"{sha256(file)}  {file.name}\n"
