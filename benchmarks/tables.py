"""Look-up and formatting of measurements: numbers as text, Markdown tables."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Record = dict[str, Any]  # the JSON of one measurement

NAMES = {"batchtopk": "BatchTopK", "topk": "TopK", "jumprelu": "JumpReLU"}
DEFAULTS = {"dead": 0.0, "precision": "float32"}  # values that a spec may leave out


def find(records: Iterable[Record], **wanted: Any) -> Record | None:
    """Return the measurement with these values of library and spec; None if there is none."""
    wanted = DEFAULTS | wanted
    for record in records:
        known = DEFAULTS | {"library": record["library"]} | record["spec"]
        if all(known.get(key) == value for key, value in wanted.items()):
            return record
    return None


def good(record: Record | None) -> bool:
    """Return whether there is a measurement that succeeded."""
    return record is not None and "failed" not in record


def step(record: Record) -> float:
    """Return the median seconds of a training step."""
    return median(record["step_seconds"])


def product(record: Record) -> float:
    """Return the median seconds of the bare product."""
    return median(record["product_seconds"])


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of the least-squares line in log-log space: 1 if twice the size takes twice the time."""
    xs, ys = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)


def digits(value: float) -> str:
    """Return a number with three significant digits, or with all digits before the decimal point."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def times(value: float) -> str:
    """Return a ratio with a suitable number of digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def dash(record: Record | None) -> str:
    """Return the cell for a missing number: the failure of the measurement, or nothing if it was not run."""
    return "" if record is None else f"- ({record['failed']})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Return a Markdown table. The first `words` columns hold text, the others numbers."""
    lines = [header, ["---" if column < words else "---:" for column in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
