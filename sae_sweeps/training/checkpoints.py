"""Checkpoints of a training state: written atomically, checksummed, the newest two kept. Safetensors only.

checkpoint/step-00000200/state.safetensors     every tensor of the state; in the metadata, whose state it is
checkpoint/step-00000200/state.sha256          checksum of state.safetensors, as `sha256sum -c` reads it
"""

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweeps.runtime.files import naming_file, save_tensors, sha256, sync
from sae_sweeps.runtime.held import require_held
from sae_sweeps.runtime.leftovers import temporary_path

if TYPE_CHECKING:  # listing checkpoints needs no torch, which takes a second to import
    from torch import Tensor

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints per point
OWNER = "of"  # key in the metadata
STATE, CHECKSUM = "state.safetensors", "state.sha256"


def save(folder: Path, step: int, state: dict[str, "Tensor"], owner: str) -> None:
    """Write the tensors of `state` as the checkpoint of `step`, then remove all but the newest two checkpoints.

    owner: name of the point or study whose state it is

    The checkpoint is written under a temporary name, and renamed when the files are on the disk. If writing fails, for
    example on a full disk, the temporary files are removed and the error is raised.

    Raises: LostFolderError if the folder is held (runtime/held.py) and not there any more.
    """
    require_held(folder)
    target = folder / f"step-{step:08d}"
    partial = temporary_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_tensors(state, partial / STATE, {OWNER: owner})
        with naming_file(partial / CHECKSUM):
            (partial / CHECKSUM).write_text(_checksum_line(partial / STATE))
        for file in (partial / STATE, partial / CHECKSUM, partial):
            sync(file)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if os.path.lexists(target):  # the same step, written by an earlier run
        _remove(target)
    partial.rename(target)
    sync(folder)
    for old in _steps(folder)[:-KEPT]:
        _remove(old)


def load_newest(
    folder: Path, owner: str, check: "Callable[[dict[str, Tensor]], None]" = lambda state: None
) -> "dict[str, Tensor] | None":
    """Return the tensors of the newest intact checkpoint in `folder` by name, or None if there is none.

    Damaged checkpoints and those of another point are removed with a warning.

    owner: name of the point or study whose state it must be
    check: raises ValueError for tensors that are not those of such a state
    """
    from safetensors import SafetensorError

    damaged = False
    for candidate in reversed(_steps(folder)):
        try:
            state = _load(candidate, owner)
            check(state)
            if damaged:
                log.warning("loading the older checkpoint %s; training repeats all later steps", candidate.name)
            return state
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s) and is removed", candidate, error)
            _remove(candidate)
            damaged = True
    if damaged:
        log.warning("no intact checkpoint is left; training starts again from step 0")
    return None


def _load(checkpoint: Path, owner: str) -> "dict[str, Tensor]":
    """Return the tensors in the folder of a checkpoint.

    Raises: ValueError, SafetensorError or OSError if it is damaged, of another step or another owner's.
    """
    from safetensors import safe_open

    if (checkpoint / CHECKSUM).read_bytes() != _checksum_line(checkpoint / STATE).encode():
        raise ValueError("the checksum of the file does not match")
    with safe_open(checkpoint / STATE, "pt") as file:
        found = (file.metadata() or {}).get(OWNER, owner)  # earlier versions did not write it
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    if found != owner:
        raise ValueError(f"it belongs to {found}, not to {owner}")
    if (step := _step(checkpoint)) != int(state.get("steps_done", step)):
        raise ValueError(f"it is of step {int(state['steps_done'])}")
    return state


def _remove(path: Path) -> None:
    """Remove a folder, or a file in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in `folder`, read from the folder names alone; 0 if there is none."""
    steps = _steps(folder)
    return _step(steps[-1]) if steps else 0


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _steps(folder: Path) -> list[Path]:
    """List the folders of the checkpoints in `folder`, oldest first; none if `folder` does not exist."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if re.fullmatch(r"step-\d{8,18}", entry.name, re.ASCII)]
    return sorted(found, key=_step)


def _checksum_line(file: Path) -> str:
    return f"{sha256(file)}  {file.name}\n"
