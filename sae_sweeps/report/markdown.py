"""Markdown: text that is shown as it is, tables, and the points of sweeps as a table for a paper or a README."""

import re
from collections.abc import Sequence

from sae_sweeps.evaluation.metrics import METRICS, choose_columns
from sae_sweeps.report.points import format_mean
from sae_sweeps.runtime.text import to_visible
from sae_sweeps.sweep.comparison import Group, finite_or_inf, is_best

# what means something inside a line of Markdown: code, emphasis, links, HTML, entities, formulas, the end of a heading;
# and what the hub makes a link without any mark: addresses and names of users
SPECIAL = re.compile(r"[\\`*\[\]<>&~#@$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.", re.IGNORECASE)
NOT_IN_CODE = re.compile(r"[\\`|]")  # ends a code span, or is read otherwise in that of a table


def escape_markdown(text: str) -> str:
    """Return Markdown of one line that shows `text` as it is, whoever wrote it. `format_markdown_row` escapes bars."""
    return SPECIAL.sub(r"\\\g<0>", to_visible(text))


def format_code(text: str) -> str:
    """Return Markdown that shows `text` as code, or as plain text if a character in it would end the code."""
    visible = to_visible(text)
    return escape_markdown(text) if NOT_IN_CODE.search(visible) or not visible.strip() else f"`{visible}`"


def format_markdown_table(groups: Sequence[Group]) -> str:
    """Return a Markdown table with a row per group of seeds, lowest NMSE first.

    Cells are mean ± standard deviation over seeds, with the best mean of each metric among groups of equal k, model,
    hook and text in bold. Groups without results come last, with the states of the points.
    """
    columns = choose_columns(group.mean for group in groups)
    titles = [
        METRICS[name].title + (f" ({METRICS[name].unit})" if METRICS[name].unit == "nats" else "") for name in columns
    ]
    lines = [format_markdown_row(["SAE", *titles]), format_markdown_row(["---", *["---:"] * len(titles)])]
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        seeds = f" ({len(group.points)} seeds)" if len(group.points) > 1 else ""
        cells = [
            f"**{format_mean(name, group)}**" if is_best(group, groups, METRICS[name]) else format_mean(name, group)
            for name in columns
        ]
        states = sorted({point.state.state for point in group.points if point.results is None})
        missing = f" ({', '.join(states)})" if states else ""
        lines.append(format_markdown_row([escape_markdown(group.label + seeds + missing), *cells]))
    return "\n".join(lines)


def format_markdown_row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table. Vertical bars in cells are escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
