"""Builds tables of points and SAEs for the terminal: what was swept is a column, and a table fits its width."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from sae_sweeps.config.differences import find_swept, flatten, format_value, title_settings
from sae_sweeps.evaluation.metrics import METRICS, choose_columns
from sae_sweeps.report.points import format_mean
from sae_sweeps.runtime.console import console, to_printable
from sae_sweeps.sweep.comparison import ComparedPoint, Group, find_contest, finite_or_inf, group_by_seed, is_best
from sae_sweeps.training.curve import read_lines

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 10  # width of a training curve in characters


def points_table(name: str, points: Sequence[ComparedPoint]) -> Table:
    """Build a table of the finished points of the sweep `name`, lowest NMSE first.

    Columns: the settings in which the points differ; metrics, with * at the best value of each among points of equal k,
    model, hook and text; the training MSE as a sparkline, on a logarithmic scale shared by all points; and tokens per
    second of the point's own training steps. The last two are left out where the terminal is too narrow.
    """
    finished = [point for point in points if point.results is not None]
    done = sorted(finished, key=lambda point: finite_or_inf(point.metrics.get("nmse")))
    groups = [
        Group(point.name, [point], point.metrics, dict.fromkeys(point.metrics), contest=find_contest(point))
        for point in done
    ]
    curves = [_sample_mse(point) for point in done]
    values = [value for curve in curves for value in curve]
    low, high = min(values, default=0.0), max(values, default=0.0)
    unfinished = [point for point in points if point.results is None]
    swept = swept_columns([point.config for point in [*done, *unfinished]])
    more = {"MSE": [sparkline(curve, low, high) for curve in curves], "own tok/s": list(map(_format_speed, done))}
    while True:
        table = _new_table(f"sweep {name}", "point", groups, swept)
        for title in more:
            is_curve = title == "MSE"
            table.add_column(
                title, no_wrap=True, justify="left" if is_curve else "right", min_width=WIDTH * is_curve or None
            )
        for at, (point, group) in enumerate(zip(done, groups, strict=True)):
            before, after = ([cells[at] for cells in columns.values()] for columns in (swept, more))
            table.add_row(point.name, *before, *_format_cells(group, groups), *after)
        if not more or has_room(table):
            return table
        more.popitem()


def swept_columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the columns of the settings in which points differ: title -> one cell per point.

    configs: nested settings of the points
    """
    titles = title_settings(find_swept(configs))
    flat = [flatten(config) for config in configs]
    return {title: [to_printable(format_value(one.get(name))) for one in flat] for name, title in titles.items()}


def has_room(table: Table) -> bool:
    """Return whether a table fits into a line of the console."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width


def _format_speed(point: ComparedPoint) -> str:
    assert point.results is not None, "only finished points are listed"
    rate = point.results["training"]["tokens_per_second"]
    return "" if rate is None else f"{rate:,.0f}"


def seeds_table(name: str, points: Sequence[ComparedPoint]) -> Table | None:
    """Build a table of mean ± standard deviation over seeds, for finished points; None if no SAE has several seeds.

    name: name of the sweep, for the title
    """
    groups = [group for group in group_by_seed([point for point in points if point.results]) if len(group.points) > 1]
    if not groups:
        return None
    table = _new_table(to_printable(f"sweep {name}: mean ± standard deviation over seeds"), "", groups)
    table.add_column("seeds", justify="right", no_wrap=True)
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        table.add_row(group.label, *_format_cells(group, groups), str(len(group.points)))
    return table


def saes_table(title: str, metrics: Mapping[str, Mapping[str, float | None]], ks: Mapping[str, int | None]) -> Table:
    """Build a table of SAEs, lowest NMSE first.

    metrics: label of the SAE -> metric name -> value
    ks: label of the SAE -> k; only SAEs of equal k are compared for the best value
    """
    known = {name: {key: value for key, value in each.items() if value is not None} for name, each in metrics.items()}
    groups = [Group(name, [], values, dict.fromkeys(values), contest=ks[name]) for name, values in known.items()]
    table = _new_table(title, "SAE", groups)
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        table.add_row(group.label, *_format_cells(group, groups))
    return table


def _new_table(title: str, first_column: str, groups: Sequence[Group], settings: Iterable[str] = ()) -> Table:
    """Return a table without rows: columns of settings, then of the metrics that the groups have."""
    table = Table(title=title, title_justify="left")
    table.add_column(first_column, no_wrap=True)
    for column in (*settings, *_choose_columns(groups).values()):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _choose_columns(groups: Sequence[Group]) -> dict[str, str]:
    return choose_columns(group.mean for group in groups)


def _format_cells(group: Group, groups: Sequence[Group]) -> list[str | Text]:
    columns = _choose_columns(groups)
    texts = {name: to_printable(format_mean(name, group)) for name in columns}
    best = {name for name in columns if is_best(group, groups, METRICS[name])}
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
