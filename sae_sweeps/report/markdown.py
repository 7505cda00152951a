"""The points of sweeps as a Markdown table for a paper or a README."""

from collections.abc import Sequence

from sae_sweeps.evaluation.metrics import COLUMNS, METRICS
from sae_sweeps.report.points import format_mean
from sae_sweeps.sweep.comparison import Group, find_best, finite_or_inf


def format_markdown_table(groups: Sequence[Group]) -> str:
    """Return a Markdown table with a row per group of seeds, lowest NMSE first.

    Cells are mean ± standard deviation over seeds, with the best mean of each metric in bold. Groups without results
    come last, with the states of the points.
    """
    titles = [
        METRICS[name].title + (f" ({METRICS[name].unit})" if METRICS[name].unit == "nats" else "") for name in COLUMNS
    ]
    lines = [format_markdown_row(["SAE", *titles]), format_markdown_row(["---", *["---:"] * len(titles)])]
    best = {name: find_best(groups, METRICS[name]) for name in COLUMNS}
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        seeds = f" ({len(group.points)} seeds)" if len(group.points) > 1 else ""
        cells = [
            f"**{format_mean(name, group)}**"
            if name in group.mean and group.mean[name] == best[name]
            else format_mean(name, group)
            for name in COLUMNS
        ]
        states = sorted({point.state.state for point in group.points if point.results is None})
        missing = f" ({', '.join(states)})" if states else ""
        lines.append(format_markdown_row([group.label + seeds + missing, *cells]))
    return "\n".join(lines)


def format_markdown_row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table. Vertical bars in cells are escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
