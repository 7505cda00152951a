"""What a person sees while a sweep runs: bars on a terminal, plain lines in a pipe or a batch log."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

console = Console(width=None if Console().is_terminal else 120, soft_wrap=False, highlight=False)
SECONDS_BETWEEN_LINES = 10.0


class ConsoleHandler(logging.Handler):
    """Log lines that do not tear the progress bars; named in conf/hydra/job_logging."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else None
        console.print(self.format(record), style=style, markup=False, soft_wrap=True)


class PointDisplay:
    """The line of one point: what it does now, how far it is, how fast, its loss and L0."""

    def __init__(self, sweep: "Display", name: str) -> None:
        self._sweep, self._name = sweep, name
        self._began = self._last_line = 0.0
        self._first = 0
        self._task: TaskID | None = None

    def stage(self, what: str) -> None:
        """Say what is done now, where that takes a while."""
        if self._sweep.bars is None:
            console.print(f"{self._name}: {what}", soft_wrap=True)
        else:
            self._sweep.point_status(self._ensure_task(), what)

    def _ensure_task(self, total: int | None = None) -> TaskID:
        bars = self._sweep.bars
        assert bars is not None, "only with bars"
        if self._task is None:
            self._task = bars.add_task(self._name, total=total, status="")
        return self._task

    def progress(self, tokens: int, total: int, loss: float, l0: float) -> None:
        """Called at every step; plain lines come at most every few seconds."""
        now = time.monotonic()
        if self._began == 0:
            self._began, self._last_line, self._first = now, now, tokens
        rate = (tokens - self._first) / max(now - self._began, 1e-9)
        status = f"{rate:,.0f} tok/s  loss {loss:.4f}  l0 {l0:.1f}"
        if self._sweep.bars is not None:
            task = self._ensure_task()
            self._sweep.bars.update(task, completed=tokens, total=total, status=status)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES or tokens == total:
            self._last_line = now
            left = (total - tokens) / rate if rate > 0 else 0
            console.print(f"{self._name}: {tokens:,} of {total:,} tokens  {status}  {left:.0f} s left", soft_wrap=True)

    def close(self) -> None:
        if self._sweep.bars is not None and self._task is not None:
            self._sweep.bars.remove_task(self._task)


class Display:
    """All that is shown of a sweep. One at a time; `current()` is the one that runs."""

    def __init__(self, points: int) -> None:
        self.bars: Progress | None = None
        self._points = points
        self._task: TaskID | None = None
        self._done = 0
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                _Count(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[status]}"),
                console=console,
            )

    def point(self, name: str) -> PointDisplay:
        return PointDisplay(self, name)

    def point_status(self, task: TaskID, status: str) -> None:
        assert self.bars is not None, "only with bars"
        self.bars.update(task, status=status)

    def point_finished(self) -> None:
        self._done += 1
        if self.bars is not None and self._task is not None:
            self.bars.update(self._task, advance=1)
        elif self._points > 1:
            console.print(f"{self._done} of {self._points} points finished", soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator["Display"]:
        global _current
        _current = self
        try:
            if self.bars is None:
                yield self
            else:
                with self.bars:
                    if self._points > 1:
                        self._task = self.bars.add_task("points", total=self._points, status="")
                    yield self
        finally:
            _current = None


class _Count(MofNCompleteColumn):
    """`3/6` for points; tokens are told as a rate."""

    def render(self, task):  # type: ignore[no-untyped-def]
        return (
            super().render(task)
            if task.description == "points"
            else TextColumn("{task.percentage:>3.0f}%").render(task)
        )


_current: Display | None = None


def current() -> Display:
    """The display of the sweep that runs, or a new one for a point on its own."""
    return _current or Display(1)


COLUMNS = {  # metric -> (title, format, which end is best)
    "nmse": ("NMSE", "{:.4f}", min),
    "fvu": ("FVU", "{:.4f}", min),
    "l0": ("L0", "{:.1f}", None),
    "dead_fraction": ("dead", "{:.1%}", min),
    "ce_degradation": ("CE +nats", "{:.4f}", min),
    "ce_recovered_mean": ("CE rec. (mean)", "{:.4f}", max),
}


def points_table(name: str, rows: Sequence[dict]) -> Table:
    """The finished points, best NMSE first; the best value of each column is marked with *."""
    table = Table(title=f"sweep {name}", title_justify="left")
    table.add_column("point", no_wrap=True)
    for title, _, _ in COLUMNS.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("tok/s", justify="right", no_wrap=True)
    best = {
        metric: pick(row[metric] for row in rows) for metric, (_, _, pick) in COLUMNS.items() if pick and len(rows) > 1
    }
    for row in sorted(rows, key=lambda row: row["nmse"]):
        cells = []
        for metric, (_, form, _) in COLUMNS.items():
            text = form.format(row[metric])
            cells.append(f"[bold]{text}*[/bold]" if best.get(metric) == row[metric] else f"{text} ")
        table.add_row(row["point"], *cells, f"{row['tokens_per_second']:,.0f}")
    return table
