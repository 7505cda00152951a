"""Checkpoints of a training state: written atomically, checksummed, the newest two kept. Safetensors only.

checkpoint/step-00000200/state.safetensors     every tensor of the state
checkpoint/step-00000200/state.sha256          checksum of state.safetensors, as `sha256sum -c` reads it
"""

import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweeps.runtime.files import naming_file, save_tensors, sha256, sync
from sae_sweeps.runtime.held import require_held
from sae_sweeps.runtime.leftovers import temporary_path

if TYPE_CHECKING:  # listing checkpoints needs no torch, which takes a second to import
    from torch import Tensor

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints per point
STATE, CHECKSUM = "state.safetensors", "state.sha256"


def save(folder: Path, step: int, state: dict[str, "Tensor"]) -> None:
    """Write the tensors of `state` as the checkpoint of `step`, then remove all but the newest two checkpoints.

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
        save_tensors(state, partial / STATE)
        with naming_file(partial / CHECKSUM):
            (partial / CHECKSUM).write_text(_checksum_line(partial / STATE))
        for file in (partial / STATE, partial / CHECKSUM, partial):
            sync(file)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)  # the same step, written by an earlier run
    partial.rename(target)
    sync(folder)
    for old in _steps(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_newest(folder: Path) -> "dict[str, Tensor] | None":
    """Return the tensors of the newest intact checkpoint in `folder` by name, or None if there is none.

    Damaged checkpoints are removed with a warning.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    damaged = False
    for candidate in reversed(_steps(folder)):
        try:
            if (candidate / CHECKSUM).read_text() != _checksum_line(candidate / STATE):
                raise ValueError("the checksum of the file does not match")
            state = load_file(candidate / STATE)
            if damaged:
                log.warning("loading the older checkpoint %s; training repeats all later steps", candidate.name)
            return state
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s) and is removed", candidate, error)
            shutil.rmtree(candidate)
            damaged = True
    if damaged:
        log.warning("no intact checkpoint is left; training starts again from step 0")
    return None


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in `folder`, read from the folder names alone; 0 if there is none."""
    steps = _steps(folder)
    return int(steps[-1].name.removeprefix("step-")) if steps else 0


def _steps(folder: Path) -> list[Path]:
    """List the folders of the checkpoints in `folder`, oldest first; none if `folder` does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if re.fullmatch(r"step-\d{8,}", entry.name))


def _checksum_line(file: Path) -> str:
    return f"{sha256(file)}  {file.name}\n"
