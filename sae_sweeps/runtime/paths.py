"""Paths: `~` and variables in those that settings name, and names from the content of files, which stay in a folder."""

import os
import re
import unicodedata
from pathlib import Path

from sae_sweeps.runtime.errors import ConfigError

NAME_BYTES = 255  # longest name of a file or folder on Linux
# characters that Python prints as they are, although nothing is seen: fillers, joiners and variation selectors
UNSEEN = {
    *map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x180E), 0x180F, 0x2800, 0x3164, 0xFFA0, 0x1D159)),
    *map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))),
}
PATH_FIX = "choose a path without it, or rename the file or folder"
BREAKS = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and of what ends a line
BIDIRECTIONAL = {*map(chr, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
PREFIX = re.compile(r"[a-z_]+:(?=[~$])")  # the format in front of a folder, for example sae_lens:~/sae


def expand(path: str, setting: str) -> str:
    """Return a path with `~` and `~user` at its start, and `$VARIABLE` anywhere, replaced.

    A $ is kept in a path that exists as it is.

    path: a path or a glob; `FORMAT:` in front of it is kept
    setting: setting that contains the path, for error messages
    Raises: ConfigError if there is no such user or variable, or if the home folder is not known.
    """
    if not set(path) & {"~", "$"}:
        return path
    prefix = match[0] if (match := PREFIX.match(path)) else ""
    expanded = path.removeprefix(prefix)
    if not os.path.lexists(expanded):
        expanded = VARIABLE.sub(lambda name: _read_variable(name[1], path, setting), expanded)
    if not expanded.startswith("~"):
        return prefix + expanded
    with_home = os.path.expanduser(expanded)
    if with_home.startswith("~"):
        user = expanded.partition("/")[0].removeprefix("~")
        problem = f"there is no user {user}" if user else "the home folder is not known"
        fix = "write the whole path" + (f", or ./{expanded} for a folder here" if user else ", or set HOME")
        raise ConfigError(setting, path, problem, fix)
    return prefix + with_home


def expand_folder(path: str | Path, setting: str) -> Path:
    """Return `expand` of a path as a Path. Raises: ConfigError as `expand` does."""
    return Path(expand(str(path), setting))


def _read_variable(name: str, path: str, setting: str) -> str:
    if name not in os.environ:
        problem, fix = f"the environment variable {name} is not set", f"set {name}, or write the whole path"
        raise ConfigError(setting, path, problem, fix)
    return os.environ[name]


def find_hidden(text: str) -> str | None:
    """Return the first character of a text that cannot be seen, as Python writes it; None if there is none."""
    return next((ascii(letter) for letter in text if not letter.isprintable() or letter in UNSEEN), None)


def find_control(text: str) -> str | None:
    """Return the first character that ends a line, controls a terminal or turns the direction of a text; else None.

    The character is written as Python writes it. Others that cannot be seen are left to paths: files may have them.
    """
    found = (letter for letter in text if unicodedata.category(letter) in BREAKS or letter in BIDIRECTIONAL)
    return next(map(ascii, found), None)


def find_path_problem(path: str) -> str | None:
    """Return why a path that a setting names is refused; None if it is not."""
    control = find_control(path)
    return None if control is None else f"must not contain {control}, a control character"


def find_name_problem(name: str) -> str | None:
    """Return what is wrong with the name of one file or folder, to be read after the name; None if it is one."""
    if name in ("", ".", ".."):
        return "is no name of a file or folder"
    if "/" in name or "\\" in name:
        return "must be one name, without / and \\"
    if hidden := find_hidden(name):
        return f"must not contain {hidden}, which cannot be seen"
    if (size := len(name.encode())) > NAME_BYTES:
        return f"must be at most {NAME_BYTES} bytes long, but has {size}"
    return None


def find_relative_problem(path: str) -> str | None:
    """Return why a path of names with / between, from the content of a file, is none inside a folder; None if it is."""
    names = path.rstrip("/").split("/") if path else []
    return next((f"{shorten_name(name)!r} {found}" for name in names if (found := find_name_problem(name))), None)


def join(root: Path, *names: str) -> Path:
    """Return the path of names below a folder, where a name is from the content of a file and may be anything.

    Raises: ValueError if a name is not that of one file or folder, or if a link leads out of `root`.
    """
    for name in names:
        if (problem := find_name_problem(name)) is not None:
            raise ValueError(f"{shorten_name(name)!r} {problem}")
    path = root.joinpath(*names)
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} is a link that leads out of {root}")
    return path


def place(root: Path, name: str, setting: str) -> Path:
    """Return `join(root, name)`, a folder for results. Raises: ConfigError for `setting` where `join` refuses it."""
    try:
        return join(root, name)
    except ValueError as error:
        problem = f"there can be no folder for these results ({error})"
        raise ConfigError(
            setting, str(root), problem, f"choose another {setting}, or rename the SAE's folder"
        ) from None


def require_no_links(folder: Path, setting: str) -> None:
    """Require that neither `folder` nor a folder in it is a link: what is written there would get somewhere else.

    Links above it are the user's, and a link in place of a file is replaced by the file. Raises: ConfigError.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() and not path.is_file():
            problem, fix = f"{path} is a link, through which nothing is written", "remove it, or set another folder"
            raise ConfigError(setting, str(folder.parent), problem, fix)


def shorten_name(name: str, end: str = "") -> str:
    """Return a name followed by `end`, with as many letters of the name as fit into the name of a file or folder."""
    return name.encode(errors="replace")[: NAME_BYTES - len(end.encode())].decode(errors="ignore") + end
