"""Explains in one line why a file cannot be written: which disk is full, or which folder has no permission."""

import errno
import getpass
import os
import re
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM)
ELSEWHERE = "Use another place (output_root=FOLDER, or the setting that names it)"
RESUME = "then rerun the command to resume from the last checkpoint"


def error_number(error: BaseException) -> int | None:
    """Return the number of the system's error, such as errno.ENOSPC; None if the error has none.

    The message is searched too, because some libraries keep the number only there: "... (os error 28)".
    """
    if isinstance(number := getattr(error, "errno", None), int):
        return number
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return int(found[1])
    return errno.ENOSPC if "No space left on device" in str(error) else None


def is_forbidden(error: BaseException) -> bool:
    """Return whether an error means that a folder has no permission, or lies on a read-only file system."""
    return error_number(error) in (*FORBIDDEN, errno.EROFS)


def explain_storage(error: BaseException) -> str | None:
    """Return one line on a full disk, quota or file system, a read-only one, or a folder that is in the way or closed.

    The line names the place, if the error does, and a fix. Returns None for any other error.
    """
    number, path = error_number(error), _path_of(error)
    if number in FULL:
        return f"{_explain_full(number, path)}, {RESUME}"
    place = "" if path is None else f" {path}"
    if number == errno.EROFS:
        where = "" if path is None else f" {mount_point(path)}"
        return f"the file system{where} is read-only, so{place or ' a file'} cannot be written. {ELSEWHERE}"
    if number == errno.EISDIR and path is not None:
        return f"{path} is a folder, but a file must be written there. Move the folder away, then rerun the command"
    if number in FORBIDDEN and path is not None:
        return f"no permission to use {path}: {_describe_access(path)}. Get access to it, or: {ELSEWHERE}"
    return None


def _path_of(error: BaseException) -> Path | None:
    """Return the file or folder that an OSError names; None without a name."""
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)  # the second is a file's new name
    return Path(os.fsdecode(name)).absolute() if isinstance(name, str | bytes | os.PathLike) else None


def _explain_full(number: int, path: Path | None) -> str:
    if number == errno.EFBIG:
        return f"the file {path or ''} is larger than its file system or `ulimit -f` allows. Raise the limit"
    what = "your quota is used up" if number == errno.EDQUOT else "the disk is full"
    if path is None:
        return f"{what}. Free some space"
    mount = mount_point(path)
    try:
        state = os.statvfs(mount)
    except OSError:
        return f"{what}: {mount}, at {path}. Free some space there"
    if number == errno.ENOSPC and state.f_files > 0 and state.f_favail == 0:
        return f"the disk is full: {mount} can hold no more files (no free inodes), at {path}. Remove some files there"
    free = state.f_bavail * state.f_frsize / 2**20
    return f"{what}: {mount} has {free:,.1f} MiB free, at {path}. Free some space there"


def _describe_access(path: Path) -> str:
    folder = nearest_folder(path)
    try:
        owner, mode = folder.owner(), folder.stat().st_mode & 0o777
    except (OSError, KeyError):
        return f"the folder {folder} does not allow it"
    return f"the folder {folder} belongs to {owner} (mode {mode:o}), and you are {_user()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user whom the system does not know
        return f"user {os.geteuid()}"


def nearest_folder(path: Path) -> Path:
    """Return the closest parent of a path that exists and is a folder."""
    return next(level for level in path.absolute().parents if level.is_dir())


def mount_point(path: Path) -> Path:
    """Return the folder at which the file system of a path is mounted. The path need not exist."""
    return next(level for level in (path.absolute(), *path.absolute().parents) if os.path.ismount(level))
