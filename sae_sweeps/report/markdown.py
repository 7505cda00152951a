"""The points of sweeps as a Markdown table, to be pasted into a paper or a README."""

from collections.abc import Sequence

from sae_sweeps.evaluation.metrics import COLUMNS, METRICS
from sae_sweeps.report.points import number
from sae_sweeps.sweep.comparison import Group, find_best, finite_or_inf


def markdown(groups: Sequence[Group]) -> str:
    """A row per group, the lowest NMSE first: means and the spread over seeds, the best in bold. What is not done
    comes last, with its state."""
    titles = [
        METRICS[name].title + (f" ({METRICS[name].unit})" if METRICS[name].unit == "nats" else "") for name in COLUMNS
    ]
    lines = [markdown_row(["SAE", *titles]), markdown_row(["---", *["---:"] * len(titles)])]
    marked = {name: find_best(groups, METRICS[name]) for name in COLUMNS}
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        seeds = f" ({len(group.points)} seeds)" if len(group.points) > 1 else ""
        cells = [
            f"**{number(name, group)}**"
            if name in group.mean and group.mean[name] == marked[name]
            else number(name, group)
            for name in COLUMNS
        ]
        states = sorted({point.state.state for point in group.points if point.results is None})
        missing = f" ({', '.join(states)})" if states else ""
        lines.append(markdown_row([group.label + seeds + missing, *cells]))
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
