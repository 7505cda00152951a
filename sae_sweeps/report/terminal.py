"""Builds tables of points and SAEs for the terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from sae_sweeps.evaluation.metrics import COLUMNS, METRICS
from sae_sweeps.report.points import format_mean
from sae_sweeps.runtime.console import to_printable
from sae_sweeps.sweep.comparison import ComparedPoint, Group, find_contest, finite_or_inf, group_by_seed, is_best
from sae_sweeps.training.curve import read_lines

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 10  # width of a training curve in characters


def points_table(name: str, points: Sequence[ComparedPoint]) -> Table:
    """Build a table of the finished points of the sweep `name`, lowest NMSE first.

    Columns: metrics, with * at the best value of each among points of equal k, model, hook and text; the training MSE
    as a sparkline, on a logarithmic scale shared by all points; and tokens per second of the point's own training.
    """
    table = _new_table(f"sweep {name}", "point")
    table.add_column("MSE", no_wrap=True, min_width=WIDTH)
    table.add_column("own tok/s", justify="right", no_wrap=True)

    finished = [point for point in points if point.results is not None]
    done = sorted(finished, key=lambda point: finite_or_inf(point.metrics.get("nmse")))
    groups = [
        Group(point.name, [point], point.metrics, dict.fromkeys(point.metrics), contest=find_contest(point))
        for point in done
    ]
    curves = [_sample_mse(point) for point in done]
    values = [value for curve in curves for value in curve]
    low, high = min(values, default=0.0), max(values, default=0.0)
    for point, group, curve in zip(done, groups, curves, strict=True):
        assert point.results is not None, "only finished points are listed"
        rate = point.results["training"]["tokens_per_second"]
        speed = "" if rate is None else f"{rate:,.0f}"
        table.add_row(point.name, *_format_cells(group, groups), sparkline(curve, low, high), speed)
    return table


def seeds_table(name: str, points: Sequence[ComparedPoint]) -> Table | None:
    """Build a table of mean ± standard deviation over seeds, for finished points; None if no SAE has several seeds.

    name: name of the sweep, for the title
    """
    groups = [group for group in group_by_seed([point for point in points if point.results]) if len(group.points) > 1]
    if not groups:
        return None
    table = _new_table(to_printable(f"sweep {name}: mean ± standard deviation over seeds"), "")
    table.add_column("seeds", justify="right", no_wrap=True)
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        table.add_row(group.label, *_format_cells(group, groups), str(len(group.points)))
    return table


def saes_table(title: str, metrics: Mapping[str, Mapping[str, float | None]], ks: Mapping[str, int | None]) -> Table:
    """Build a table of SAEs, lowest NMSE first.

    metrics: label of the SAE -> metric name -> value
    ks: label of the SAE -> k; only SAEs of equal k are compared for the best value
    """
    table = _new_table(title, "SAE")
    known = {name: {key: value for key, value in each.items() if value is not None} for name, each in metrics.items()}
    groups = [Group(name, [], values, dict.fromkeys(values), contest=ks[name]) for name, values in known.items()]
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        table.add_row(group.label, *_format_cells(group, groups))
    return table


def _new_table(title: str, first_column: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first_column, no_wrap=True)
    for column in COLUMNS.values():
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _format_cells(group: Group, groups: Sequence[Group]) -> list[str | Text]:
    texts = {name: to_printable(format_mean(name, group)) for name in COLUMNS}
    best = {name for name in COLUMNS if is_best(group, groups, METRICS[name])}
    return [Text(f"{text}*", "bold") if name in best else f"{text} " for name, text in texts.items()]


def _sample_mse(point: ComparedPoint) -> list[float]:
    """Return WIDTH values of the training MSE of a point at equal distances; empty if there is no training curve."""
    lines = read_lines(point.sweep.folder / point.name / "metrics.jsonl")
    values = [mse for line in lines if (mse := line.get("mse")) is not None and 0 < mse < math.inf]
    if not values:
        return []
    return [values[round(at * (len(values) - 1) / (WIDTH - 1))] for at in range(WIDTH)]


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Draw positive values as a string of bars, one character each, on a logarithmic scale from `low` to `high`."""
    bars = to_printable(BARS)
    if not 0 < low < high:
        return bars[0] * len(values)
    heights = [math.log(value / low) / math.log(high / low) for value in values]
    return "".join(bars[round(height * (len(bars) - 1))] for height in heights)
