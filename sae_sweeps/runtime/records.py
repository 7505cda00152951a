"""Reads JSON files that this project has written. A damaged one is named in a warning and counts as absent."""

import functools
import logging
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import read_json

log = logging.getLogger(__name__)

# What a JSON value must be: a type (float: any number, but no bool), None, a function that says it, a list of one shape
# for all items, a dictionary with the shapes of required keys, or with the key `str` that of all values; a tuple of
# alternatives. Keys that a dictionary's shape does not have are allowed.
Shape = Any


def read_record(path: Path, shape: Shape) -> Any:
    """Return the JSON value in `path`; None if the file does not exist, or is damaged: not JSON of this shape.

    The warning about a damaged file comes once per process.
    """
    value = read_json(path)
    if value is not None and matches(value, shape):
        return value
    if path.exists():
        _warn(path)
    return None


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
        return isinstance(value, kinds) and (shape is bool or not isinstance(value, bool))
    if callable(shape):
        return bool(shape(value))
    return value is shape


@functools.cache
def _warn(path: Path) -> None:
    log.warning("%s is damaged and is not used; a rerun of the command that wrote it writes it again", path)
