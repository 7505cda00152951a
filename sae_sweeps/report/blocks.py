"""Compressed data in the page: JSON as gzip and base64, in `<script>` elements that the page decodes on demand."""

import base64
import gzip
import html
import json
import math
from dataclasses import dataclass, field
from typing import Any

DIGITS = 5  # significant digits of numbers that are only plotted


@dataclass
class Blocks:
    """The compressed blocks of a page, by id."""

    encoded: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> str:
        """Encode a JSON value, or a string as plain text, under this name. Returns the name."""
        text = value if isinstance(value, str) else to_json(value)
        self.encoded[name] = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
        return name

    @property
    def size(self) -> int:
        """Count the bytes of all blocks in the page."""
        return sum(map(len, self.encoded.values()))

    def html(self) -> str:
        """Return the `<script>` elements of all blocks."""
        return "\n".join(
            f'<script type="application/gzip" id="block-{html.escape(name)}">{text}</script>'
            for name, text in self.encoded.items()
        )


def to_json(value: Any) -> str:
    """Return compact JSON. NaN and infinities become null, as JSON has neither."""
    try:
        return _dumps(value)
    except ValueError:
        return _dumps(_replace_non_finite(value))


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    return value


def round_digits(value: float | None, digits: int = DIGITS) -> float | None:
    """Round to significant digits; None if the value is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
