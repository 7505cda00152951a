"""Shows progress: bars on a terminal, lines of text elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.text import to_visible

if TYPE_CHECKING:  # Hydra imports this file for logging, before settings are checked: torch would load too early
    from torch import Tensor

OnProgress = Callable[[int, int], None]  # callback with the number of finished items and the number of all items

SECONDS_BETWEEN_LINES = 10.0  # seconds between two lines of a point without a terminal; longer for more than 6 points
SECONDS_BETWEEN_FRAMES = 0.2  # seconds between two updates on a terminal


class PointProgress:
    """The line of one point or study in the display: the stage, the progress, the speed, the loss and the L0."""

    def __init__(self, bars: Progress | None, name: str, points: int) -> None:
        """Add a line to the display.

        bars: the display on a terminal; None: print lines of text instead
        name: the text at the start of the line
        points: the number of points in the display; more points print fewer lines of text
        """
        self._bars, self._name = bars, name
        self._interval = SECONDS_BETWEEN_FRAMES if bars is not None else SECONDS_BETWEEN_LINES * max(1, points / 6)
        self._began: float | None = None
        self._shown = self._first_tokens = self._latest_tokens = 0.0
        self._task = None if bars is None else bars.add_task(to_visible(name), total=None, status="")

    def show_stage(self, stage: str) -> None:
        """Show a phrase for the current work of the point, for example "evaluating"."""
        if self._bars is None or self._task is None:
            console.print(f"{self._name}: {stage}", soft_wrap=True)
        else:
            self._bars.update(self._task, status=stage)

    def show_count(self, done: int, total: int, noun: str = "sequences of the next chunk") -> None:
        """Show that `done` of `total` items are finished, at most once per interval.

        noun: a plural for the items
        """
        now = time.monotonic()
        if self._began is None or done == total:
            self._began = self._shown = now
        elif now - self._shown >= self._interval:
            self._shown = now
            self.show_stage(f"{done:,} of {total:,} {noun}")
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def show_step(self, tokens: int, total: int, loss: "Tensor", l0: "Tensor", noun: str = "tokens") -> None:
        """Show the progress, speed, loss and L0 of a training step, at most once per interval. Call it at every step.

        tokens, total: number of tokens trained on so far, and in the whole training
        loss, l0: values of this step, which are read from the device only when they are shown
        noun: a plural for the tokens
        """
        now = time.monotonic()
        if self._began is None or not 0 < self._latest_tokens <= tokens:  # this is the first step of a training run
            self._began, self._shown, self._first_tokens = now, now, tokens
        self._latest_tokens = tokens
        if now - self._shown < self._interval and tokens < total:
            return
        self._shown = now
        rate = (tokens - self._first_tokens) / max(now - self._began, 1e-9)
        unit = "tok" if noun == "tokens" else noun
        status = f"{rate:,.0f} {unit}/s  loss {loss.item():.4f}  l0 {l0.item():.1f}"
        if self._bars is None or self._task is None:
            left = (total - tokens) / max(rate, 1e-9)
            console.print(f"{self._name}: {tokens:,} of {total:,} {noun}  {status}  {left:.0f} s left", soft_wrap=True)
        else:
            self._bars.update(self._task, completed=tokens, total=total, status=status)

    def close(self) -> None:
        """Remove the line from the display. Another call has no effect."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class SweepProgress:
    """The display of a command: the number of finished points (or studies), and a line for each running one."""

    def __init__(self, points: int, noun: str = "points") -> None:
        self._points, self._finished, self._failed, self._noun = points, 0, 0, noun
        self._task: TaskID | None = None
        self._bars: Progress | None = None
        if console.is_terminal:
            name, status = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[status]}"))
            columns = (name, BarColumn(bar_width=20), TaskProgressColumn(), TimeRemainingColumn(), status)
            self._bars = Progress(*columns, console=console)

    @contextmanager
    def live(self) -> Iterator["SweepProgress"]:
        """Show the display on the terminal while the context lasts. Yields this object."""
        with self._bars or nullcontext():
            if self._bars is not None and self._points > 1:
                status = f"0 of {self._points} {self._noun}"
                self._task = self._bars.add_task("sweep", total=self._points, status=status)
            yield self

    def add_point(self, name: str) -> PointProgress:
        """Add a line with this name to the display and return it. Close the line when the point has ended."""
        return PointProgress(self._bars, name, self._points)

    def count_finished(self, *, failed: bool) -> None:
        """Count one more point as finished or failed, and show the numbers of finished and failed points."""
        self._finished += not failed
        self._failed += failed
        status = f"{self._finished} of {self._points} {self._noun} finished" + f", {self._failed} failed" * (
            self._failed > 0
        )
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=1, status=status)
        elif self._points > 1:
            console.print(status, soft_wrap=True)


def progress_callback(display: PointProgress, noun: str = "sequences of the next chunk") -> OnProgress:
    """Return a callback (done, total) that shows progress on `display` and checks for signals to stop.

    The callback raises Stopped if a signal has arrived. `noun`: a plural for the counted items
    """

    def on_progress(done: int, total: int) -> None:
        display.show_count(done, total, noun)
        signals.raise_if_stopped()

    return on_progress
