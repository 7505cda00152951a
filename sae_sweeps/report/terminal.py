"""The points of a sweep as a table on a terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from sae_sweeps.evaluation.metrics import COLUMNS, METRICS
from sae_sweeps.report.points import number
from sae_sweeps.sweep.comparison import ComparedPoint, Group, find_best, finite_or_inf, group_by_seed
from sae_sweeps.training.curve import read_lines

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 10  # characters of a curve


def points_table(name: str, points: Sequence[ComparedPoint]) -> Table:
    """The finished points, best NMSE first: metrics, the best of each marked with *; the MSE over the training, on a
    logarithmic scale that they share; own speed."""
    table = _table(f"sweep {name}", "point")
    table.add_column("MSE", no_wrap=True, min_width=WIDTH)
    table.add_column("own tok/s", justify="right", no_wrap=True)

    done = sorted(
        (point for point in points if point.results is not None), key=lambda point: finite_or_inf(point.metrics["nmse"])
    )
    alone = [Group(point.name, [point], point.metrics, dict.fromkeys(point.metrics)) for point in done]
    curves = [_mse(point) for point in done]
    values = [value for curve in curves for value in curve]
    low, high = min(values, default=0.0), max(values, default=0.0)
    for point, group, curve in zip(done, alone, curves, strict=True):
        assert point.results is not None, "it is done"
        speed = f"{point.results['training']['tokens_per_second'] or 0:,.0f}"
        table.add_row(escape(point.name), *_cells(group, alone), sparkline(curve, low, high), speed)
    return table


def seeds_table(name: str, points: Sequence[ComparedPoint]) -> Table | None:
    """Finished points that differ in their seed alone, as mean and spread; None if there are none."""
    groups = [group for group in group_by_seed([point for point in points if point.results]) if len(group.points) > 1]
    if not groups:
        return None
    table = _table(f"sweep {name}: mean ± standard deviation over seeds", "")
    table.add_column("seeds", justify="right", no_wrap=True)
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean["nmse"])):
        table.add_row(escape(group.label), *_cells(group, groups), str(len(group.points)))
    return table


def saes_table(title: str, metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """SAEs by their names, best NMSE first."""
    table = _table(title, "SAE")
    groups = [Group(name, [], dict(of_it), dict.fromkeys(of_it)) for name, of_it in metrics.items()]
    for group in sorted(groups, key=lambda group: finite_or_inf(group.mean.get("nmse"))):
        table.add_row(escape(group.label), *_cells(group, groups))
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in COLUMNS.values():
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(group: Group, among: Sequence[Group]) -> list[str]:
    texts = {name: number(name, group) for name in COLUMNS}
    marked = {name for name in COLUMNS if name in group.mean and group.mean[name] == find_best(among, METRICS[name])}
    return [f"[bold]{text}*[/bold]" if name in marked else f"{text} " for name, text in texts.items()]


def _mse(point: ComparedPoint) -> list[float]:
    """The MSE of the training batches, as many numbers as are drawn, none of a run without a curve."""
    lines = read_lines(point.sweep.folder / point.name / "metrics.jsonl")
    values = [line["mse"] for line in lines if 0 < line["mse"] < math.inf]
    if not values:
        return []
    return [values[round(at * (len(values) - 1) / (WIDTH - 1))] for at in range(WIDTH)]


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Positive numbers as blocks from low to high, on a logarithmic scale."""
    if not 0 < low < high:
        return BLOCKS[0] * len(values)
    heights = [math.log(value / low) / math.log(high / low) for value in values]
    return "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights)
