"""Shows the docstrings of this project as lists: in them a line `name: meaning` describes a parameter or a result."""

import re
from typing import Any

from griffe import Class, Extension, Function

ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


class EntryLists(Extension):
    """Makes list items of the lines `name: meaning` of docstrings."""

    def on_function_instance(self, *, func: Function, **_: Any) -> None:
        """Change the docstring of a function or method."""
        _make_list(func)

    def on_class_instance(self, *, cls: Class, **_: Any) -> None:
        """Change the docstring of a class."""
        _make_list(cls)


def _make_list(described: Function | Class) -> None:
    if described.docstring is None:
        return
    lines, is_list = [], False
    for line in described.docstring.value.splitlines():
        entry = ENTRY.match(line)
        if entry is not None:
            lines += [*([""] if not is_list else []), f"- `{entry[1]}`: {entry[2]}"]
        elif is_list and line and not line.startswith(" "):
            lines += ["", line]  # the list ends here
        else:
            lines.append(f"  {line}" if is_list and line else line)
        is_list = entry is not None or (is_list and line.startswith(" "))
    described.docstring.value = "\n".join(lines)
