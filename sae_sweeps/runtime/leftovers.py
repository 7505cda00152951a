"""Temporary files and folders: their names, and the removal of those that killed processes have left.

`.results.json.3f9a1c02-4711.tmp` is written by process 4711 on the machine 3f9a1c02, and is renamed when complete.
"""

import hashlib
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

WRITTEN = re.compile(r".+\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)\.tmp", re.DOTALL)
# temporary files of safetensors, and of this project's versions up to 0.2
UNSIGNED = re.compile(r"\.tmp[A-Za-z0-9]{6}|\..+\.\d+\.(tmp|mode|partial)|\.(partial|code)-\d+", re.DOTALL)
SKIPPED = "wandb"  # W&B's own files, which may be many
ABANDONED = 86_400.0  # seconds without a change, after which no process anywhere can still be writing


def _name_machine() -> str:
    """Return 8 hexadecimal digits for the computer since its last start, and for the container in it.

    Processes that have the same digits see each other's process ids.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


MACHINE = _name_machine()


def suffix() -> str:
    """Return the end of the name of a temporary file or folder of this process."""
    return f".{MACHINE}-{os.getpid()}.tmp"


def temporary_path(path: Path) -> Path:
    """Return where this process writes a file or folder before it gets its name: beside `path`, and hidden."""
    return path.with_name(f".{path.name}{suffix()}")


def remove_leftovers(folder: Path, *, is_locked: bool = False, below: bool = True) -> None:
    """Remove the temporary files and folders of killed processes in a folder. What cannot be removed stays.

    A process of this machine is known to be gone. What another machine has left, or a process whose number another one
    has now, counts as left after a day without a change: too many files are better than a file that is still written.

    is_locked: this process holds the lock of the folder, so whatever is temporary there was left
    below: look into the folders below, too
    """
    for parent, folders, files in os.walk(folder):
        left = [name for name in (*folders, *files) if _is_left(Path(parent, name), is_locked)]
        for name in left:
            with suppress(OSError):
                path = Path(parent, name)
                shutil.rmtree(path) if name in folders and not path.is_symlink() else path.unlink()
        if not below:
            return
        folders[:] = [name for name in folders if name not in left and name != SKIPPED]


def _is_left(path: Path, is_locked: bool) -> bool:
    """Return whether a path is a temporary one that no process writes any more."""
    written = WRITTEN.fullmatch(path.name)
    if written is None and UNSIGNED.fullmatch(path.name) is None:
        return False
    if is_locked or (written is not None and written["machine"] == MACHINE and not _is_alive(int(written["pid"]))):
        return True
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED
    except OSError:
        return False  # just renamed or removed


def _is_alive(pid: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # of another user
    return True
