"""Data that the page unpacks when it needs it: compressed JSON in base64, each in a `<script>` that is not run."""

import base64
import gzip
import html
import json
import math
from dataclasses import dataclass, field
from typing import Any

DIGITS = 5  # significant, of numbers that are drawn and not quoted


@dataclass
class Blocks:
    """The blocks of a page, by id."""

    packed: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> str:
        """Keep a JSON value, or text as it is, under the name; returns the name."""
        text = value if isinstance(value, str) else to_json(value)
        self.packed[name] = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
        return name

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return sum(map(len, self.packed.values()))

    def html(self) -> str:
        return "\n".join(
            f'<script type="application/gzip" id="block-{html.escape(name)}">{text}</script>'
            for name, text in self.packed.items()
        )


def to_json(value: Any) -> str:
    """JSON without spaces; not a number and infinities, which JSON has not, are null."""
    try:
        return _dumps(value)
    except ValueError:
        return _dumps(_finite(value))


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """To so many significant digits; None if it is not a number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
