"""Folders that this process holds: whoever moves, replaces or deletes one does not get it back half full.

A folder is recognised by a file in it, or by itself, that stays open while it is held: then no other file gets its
number (inode). Every file that `runtime/files.py`, a checkpoint or a curve writes is checked first.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.runtime.errors import TrainingError

FIX = "Move it back and rerun the command to resume from the last checkpoint, or rerun it to start from the beginning"


class LostFolderError(TrainingError):
    """Raised for a point or study whose folder was moved, replaced or deleted while it was in use."""


class LostSweep(BaseException):
    """Raised if the folder of the whole sweep was moved, replaced or deleted while a command used it.

    Not an Exception, so that code which handles a failed point does not catch it: no point can continue.
    """


@dataclass(frozen=True)
class _Held:
    """A file that is open while its folder is held, its device and inode, and what to raise if it is another one."""

    witness: str
    identity: tuple[int, int]
    error: type[LostFolderError] | type[LostSweep]


# A module global, because files are written from everywhere: absolute path of a folder -> how it is recognised
_held: dict[str, _Held] = {}


def hold(folder: Path, witness: Path) -> None:
    """Note that a point or study uses a folder, until `release`. `witness`: a file in it that this process has open."""
    _hold(folder, witness, LostFolderError)


def release(folder: Path) -> None:
    """Forget a folder that was held. A folder that is not held is ignored."""
    _held.pop(os.path.abspath(folder), None)


@contextmanager
def holding_sweep(folder: Path) -> Iterator[None]:
    """Hold the folder of a sweep and the folder above it while the context lasts.

    Raises: LostSweep if one of them does not exist, or at the end of the context is not there any more.
    """
    with ExitStack() as releasing:
        for one in (folder.absolute().parent, folder):
            if identify(one) is None:
                raise LostSweep(f"there is no folder {one} any more. {FIX}")
            releasing.callback(os.close, os.open(one, os.O_RDONLY))
            releasing.callback(release, one)
            _hold(one, one, LostSweep)
        yield
        require_held(folder)


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, unless they exist. Raises: LostSweep or LostFolderError as `require_held`."""
    require_held(folder)
    folder.mkdir(parents=True, exist_ok=True)


def require_held(path: Path) -> None:
    """Check that the held folders that contain `path`, or are it, are still those that were held.

    Raises: LostSweep or LostFolderError if one was moved, replaced or deleted.
    """
    if not _held:
        return
    whole = Path(os.path.abspath(path))
    for folder in (*reversed(whole.parents), whole):  # the sweep before its points
        known = _held.get(str(folder))
        if known is not None and identify(known.witness) != known.identity:
            state = "was replaced by another one" if folder.exists() else "was moved or deleted"
            raise known.error(
                f"the folder {folder} {state} while it was in use, so nothing more is written there. {FIX}"
            )


def find_lost(folder: Path) -> LostFolderError | None:
    """Return the error that `require_held` raises for the folder of a point or study; None if it is still there.

    Raises: LostSweep if the folder of the sweep is not there any more.
    """
    try:
        require_held(folder)
    except LostFolderError as error:
        return error
    return None


def _hold(folder: Path, witness: Path, error: type[LostFolderError] | type[LostSweep]) -> None:
    if (identity := identify(str(witness.absolute()))) is None:
        raise error(f"the folder {folder} was moved or deleted just now. {FIX}")
    _held[os.path.abspath(folder)] = _Held(str(witness.absolute()), identity, error)


def identify(file: str | Path) -> tuple[int, int] | None:
    """Return device and inode of a file or folder; None if it does not exist."""
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
