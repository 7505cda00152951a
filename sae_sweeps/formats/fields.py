"""Typed access to the settings in a configuration file: a value of another type is refused, never converted."""

import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sae_sweeps.formats.files import SAEFileError, show
from sae_sweeps.runtime.paths import find_hidden

LARGEST = 2**31 - 1  # of a size or another whole number
LONGEST = 1000  # letters of a text
# names of settings that change activations before the SAE sees them. A setting of such a name that no reader knows is
# refused wherever it stands; other unknown settings are refused only where a library defines all names
CHANGES_INPUT = re.compile(r"transform|whiten|preprocess|standardi[sz]|normali[sz]", re.IGNORECASE)


class Fields:
    """The settings in an object of a configuration file. `file`: name of the file, for messages."""

    def __init__(self, file: str, values: Mapping[str, Any]) -> None:
        self.file, self.values = file, values

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def text(self, name: str) -> str | None:
        """Return a text, None if it is absent, null or empty. Raises: SAEFileError for any other value."""
        value = self.values.get(name)
        if value is None or is_line(value):
            return value or None
        if not isinstance(value, str):
            raise self.mistyped(name, "must be text")
        is_long = len(value) > LONGEST
        raise self.mistyped(name, f"must have at most {LONGEST} letters" if is_long else "must be text in one line")

    def whole(self, name: str) -> int | None:
        """Return a whole number of at least 1, None if it is absent or null.

        Raises: SAEFileError if the value is anything else, or larger than any size can be. A float without fraction,
        such as 32.0, is a whole number; true is none.
        """
        value = self.values.get(name)
        if value is None:
            return None
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_whole or value < 1:
            raise self.mistyped(name, "must be a whole number of at least 1")
        if value > LARGEST:
            raise self.mistyped(name, f"must be at most {LARGEST}")
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false, `default` if the setting is absent or null. Raises: SAEFileError for anything else."""
        value = self.values.get(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        raise self.mistyped(name, "must be true or false")

    def section(self, name: str) -> "Fields":
        """Return the settings in an object, empty if absent or null. Raises: SAEFileError if it is no object."""
        value = self.values.get(name)
        if value is None or isinstance(value, dict):
            return Fields(self.file, value or {})
        raise self.mistyped(name, "must be a JSON object")

    def is_set(self, name: str) -> bool:
        """Return whether a setting has a value that switches something on: not null, false, 0, "none" or empty."""
        value = self.values.get(name)
        return bool(value) and value != "none" and not (isinstance(value, list) and not any(value))

    def mistyped(self, name: str, problem: str) -> SAEFileError:
        """Return the error to raise for a value of another type."""
        return SAEFileError(f"{name} in {self.file} {problem}, but it is {reprlib.repr(self.values.get(name))}")

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Refuse settings with which an SAE is not supported. `reasons`: what each of these settings means.

        Raises: SAEFileError that names the first of them, unless there are none.
        """
        for name, reason in reasons.items():
            value = reprlib.repr(self.values[name])
            raise SAEFileError(
                f"{self.file} sets {name}={value} ({reason}), which is not supported", "name another SAE"
            )

    def refuse_unknown(self, known: Collection[str], everything: bool = True) -> None:
        """Refuse settings that are set and not known, because they may change what the SAE computes.

        everything: refuse any unknown setting; otherwise only those whose name says that they change activations
        Raises: SAEFileError that names the first of them.
        """
        for name in self.values:
            if name not in known and self.is_set(name) and (everything or CHANGES_INPUT.search(name)):
                value = reprlib.repr(self.values[name])
                raise SAEFileError(
                    f"{self.file} sets {show(name)}={value}, which is not known here and may change what "
                    "the SAE computes",
                    f"remove it from {self.file} if it does not",
                )


def is_line(value: Any) -> bool:
    """Return whether a JSON value is text in one line, not too long to be shown, all of which can be seen."""
    return isinstance(value, str) and len(value) <= LONGEST and find_hidden(value) is None
