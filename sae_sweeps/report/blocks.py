"""Compressed data in the HTML report: blocks of gzipped, base64-encoded JSON that the page decodes on demand."""

import base64
import gzip
import html
import math
import re
from dataclasses import dataclass, field
from typing import Any

from sae_sweeps.runtime.files import to_json

HALF = re.compile("[\ud800-\udfff]")  # of a pair of surrogates
DIGITS = 5  # significant digits of numbers that are only plotted, not printed


@dataclass
class Blocks:
    """The blocks of an HTML report: compressed data in `<script>` elements. `encoded`: name -> base64 text."""

    encoded: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> str:
        """Store a JSON value, or a string as plain text, as the compressed block `name`. Returns `name`."""
        text = value if isinstance(value, str) else to_well_formed_json(value)
        self.encoded[name] = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
        return name

    @property
    def size(self) -> int:
        """Return the total bytes of all blocks after compression and base64 encoding."""
        return sum(map(len, self.encoded.values()))

    def html(self) -> str:
        """Return HTML with one `<script>` element for each block of compressed data; the id is block-NAME."""
        return "\n".join(
            f'<script type="application/gzip" id="block-{html.escape(name)}">{text}</script>'
            for name, text in self.encoded.items()
        )


def to_well_formed_json(value: Any) -> str:
    """Return a value as JSON. Halves of characters, which neither UTF-8 nor a link can have, become text: \\udc80."""
    return HALF.sub(lambda half: f"\\\\u{ord(half[0]):04x}", to_json(value, compact=True))


def round_digits(value: float | None, digits: int = DIGITS) -> float | None:
    """Round a number to significant digits; return None if the value is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
