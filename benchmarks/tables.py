"""Numbers for people, tables in Markdown, and what is looked up for both."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Record = dict[str, Any]  # what one measurement reported

NAMES = {"batchtopk": "BatchTopK", "topk": "TopK", "jumprelu": "JumpReLU"}
DEFAULTS = {"dead": 0.0, "precision": "float32"}  # of a spec that does not name them


def find(records: Iterable[Record], **wanted: Any) -> Record | None:
    """The measurement of this library and spec; what is not named is as by default."""
    wanted = DEFAULTS | wanted
    for record in records:
        known = DEFAULTS | {"library": record["library"]} | record["spec"]
        if all(known.get(key) == value for key, value in wanted.items()):
            return record
    return None


def good(record: Record | None) -> bool:
    return record is not None and "failed" not in record


def step(record: Record) -> float:
    return median(record["step_seconds"])


def product(record: Record) -> float:
    return median(record["product_seconds"])


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of the straight line through the logarithms: 1 where twice the size takes twice the time."""
    xs, ys = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)


def digits(value: float) -> str:
    """Three digits, or all in front of the point."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def dash(record: Record | None) -> str:
    """What stands for a number that is not there."""
    return "" if record is None else f"- ({record['failed']})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; all columns but the first `words` hold numbers."""
    lines = [header, ["---" if column < words else "---:" for column in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
