"""JSON files that this project writes and reads again. Each says what it belongs to, and proves that it is unchanged.

A record is a JSON object with one more entry, SEAL: the name of what it belongs to, such as a point's folder, and a
checksum of the name and all other entries. A file that is damaged, that was changed or that belongs to something else
is named in a warning and counts as absent. Files of earlier versions have no seal; they are checked by their shape.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import parse_json, to_json, write_atomically

log = logging.getLogger(__name__)

SEAL = "seal"

LARGEST = 2**63  # whole numbers of this size or more are damage: they fit neither a tensor nor a float

# What a JSON value must be: a type (float: any number, but no bool), None, a function that says it, a list of one shape
# for all items, a dictionary with the shapes of required keys, or with the key `str` that of all values; a tuple of
# alternatives. Keys that a dictionary's shape does not have are allowed.
Shape = Any


class DamagedError(ValueError):
    """Raised for a file that is not what it should be. The message continues a sentence: "the file ..."."""


def name_owner(path: Path) -> str:
    """Return what a record belongs to by its place: the name of its folder, and its own."""
    return f"{path.parent.name}/{path.name}"


def write_record(path: Path, content: Mapping[str, Any], owner: str | None = None, *, is_synced: bool = True) -> None:
    """Write a record to a JSON file, completely or not at all. An existing file is replaced.

    owner: what the record belongs to; None: what `name_owner` says
    is_synced: see `files.write_atomically`
    """
    owner = name_owner(path) if owner is None else owner
    content = {name: value for name, value in content.items() if name != SEAL}
    sealed = {**content, SEAL: {"of": owner, "sha256": _checksum(content, owner)}}
    with write_atomically(path, is_synced=is_synced) as temporary:
        temporary.write_text(to_json(sealed, indent=2) + "\n", encoding="utf-8")


def load_record(path: Path, shape: Shape, owner: str | None = None, *, is_sealed: bool = False) -> Any:
    """Return the entries of a record without its seal; None if there is no such file.

    owner: what the record must belong to; None: what `name_owner` says; "": anything, as in a copied folder
    is_sealed: whether there has never been such a file without a seal
    Raises: DamagedError if the file cannot be read, is not JSON of this shape, was changed, or belongs to another.
    """
    try:
        content = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror or error})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"is not JSON ({first_line(error)})") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError("is not JSON that this program writes") from error
    if isinstance(content, dict) and SEAL in content:
        _check_seal(content.pop(SEAL), content, name_owner(path) if owner is None else owner)
    elif is_sealed or _has_renamed_seal(content):
        raise DamagedError("has no seal")
    if content is None or not matches(content, shape):
        raise DamagedError("does not hold the entries that it should")
    return content


def read_record(path: Path, shape: Shape, owner: str | None = None, *, is_sealed: bool = False) -> Any:
    """Return what `load_record` does, but None for a damaged file. The warning about it comes once per process."""
    try:
        return load_record(path, shape, owner, is_sealed=is_sealed)
    except DamagedError as error:
        warn_damaged(path, str(error))
        return None


@functools.cache
def warn_damaged(path: Path, problem: str) -> None:
    """Log a warning about a file that is not used, once per process. `problem`: as in DamagedError"""
    log.warning("%s %s; it is not used, and a rerun of the command that wrote it writes it again", path, problem)


def _check_seal(seal: Any, content: Mapping[str, Any], owner: str) -> None:
    """Check a record's seal. `owner`: see `load_record`. Raises: DamagedError."""
    if not matches(seal, {"of": str, "sha256": str}):
        raise DamagedError("is damaged: its seal is none")
    if seal["sha256"] != _checksum(content, seal["of"]):
        raise DamagedError("is damaged, or was changed after it was written: its checksum does not match")
    if owner not in ("", seal["of"]):
        raise DamagedError(f"belongs to another ({seal['of']})")


def _has_renamed_seal(content: Any) -> bool:
    """Return whether an entry looks like a seal: a record that lost the name of its seal is no earlier version's."""
    return isinstance(content, dict) and any(matches(value, {"of": str, "sha256": str}) for value in content.values())


def _checksum(content: Mapping[str, Any], owner: str) -> str:
    """Return the SHA-256 of an owner and of a record's entries as JSON, in their order."""
    return hashlib.sha256(f"{owner}\n{to_json(content)}".encode()).hexdigest()


def matches(value: Any, shape: Shape) -> bool:
    """Return whether a JSON value has a shape."""
    if isinstance(shape, tuple):
        return any(matches(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(matches(item, shape[0]) for item in value)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        if str in shape:
            return all(matches(item, shape[str]) for item in value.values())
        return all(key in value and matches(value[key], inner) for key, inner in shape.items())
    if isinstance(shape, type):
        kinds = (int, float) if shape is float else shape
        is_sane = not isinstance(value, int) or -LARGEST < value < LARGEST
        return isinstance(value, kinds) and is_sane and (shape is bool or not isinstance(value, bool))
    if callable(shape):
        return bool(shape(value))
    return value is shape
