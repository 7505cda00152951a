"""Shows progress: bars on a terminal, lines of text elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.text import to_visible

if TYPE_CHECKING:  # Hydra imports this file for logging, before settings are checked: torch would load too early
    from torch import Tensor

OnProgress = Callable[[int, int], None]  # callback with the number of finished items and the number of all items

SECONDS_BETWEEN_LINES = 10.0  # seconds between two lines of a point without a terminal; longer for more than 6 points
SECONDS_BETWEEN_FRAMES = 0.2  # seconds between two updates on a terminal


class Work:
    """The work of a command in tokens: how much of it is done, and the time left at the speed so far.

    Points of a pack take turns, so the speed is that of all of them together, from the first chunk of activations on:
    reading the text, the language model and evaluations count. What an earlier command has done does not.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        """Begin with nothing done. `tokens`: name of a point -> tokens that it is trained and evaluated on."""
        self._tokens = dict(tokens)
        self._done: dict[str, int] = {}
        self._before: dict[str, int] = {}  # name -> tokens that take none of this command's time
        self._began: float | None = None

    @property
    def total(self) -> int:
        """Return the tokens of all points."""
        return sum(self._tokens.values())

    @property
    def done(self) -> int:
        """Return the tokens that are done, those of earlier commands and of failed points too."""
        return sum(self._done.values())

    def begin(self) -> None:
        """Start the clock, unless it runs."""
        self._began = time.monotonic() if self._began is None else self._began

    def move(self, name: str, tokens: int) -> None:
        """Note how many tokens a point has been trained on. The first number is what earlier commands have done.

        A name without work is ignored.
        """
        if name in self._tokens:
            self._before.setdefault(name, tokens)
            self._done[name] = tokens

    def finish(self, name: str, *, failed: bool) -> None:
        """Note that a point has ended: done, or failed or pruned. What took no time does not count as speed."""
        tokens = self._tokens.get(name, 0)
        if failed or name not in self._before:
            self._before[name] = tokens - self._done.get(name, 0) + self._before.get(name, 0)
        self._done[name] = tokens

    def describe_time_left(self) -> str:
        """Return a text such as "12 min left"; empty before the first step, and when all is done."""
        done = self.done
        here = done - sum(self._before.values())
        if self._began is None or here <= 0 or done >= self.total:
            return ""
        return f"{format_duration((self.total - done) * (time.monotonic() - self._began) / here)} left"


def format_duration(seconds: float) -> str:
    """Return a number of seconds as people say it: "95 s", "12 min" or "3 h 20 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


class PointProgress:
    """The line of one point or study in the display: the stage, the progress, the speed, the loss and the L0."""

    def __init__(self, sweep: "SweepProgress", bars: Progress | None, name: str, points: int) -> None:
        """Add a line to the display.

        sweep: the display of the command
        bars: the display on a terminal; None: print lines of text instead
        name: the text at the start of the line
        points: the number of points in the display; more points print fewer lines of text
        """
        self._sweep, self._bars, self._name = sweep, bars, name
        self._interval = SECONDS_BETWEEN_FRAMES if bars is not None else SECONDS_BETWEEN_LINES * max(1, points / 6)
        self._began: float | None = None
        self._shown = 0.0
        self._first_tokens = self._latest_tokens = 0
        self._task = None if bars is None else bars.add_task(to_visible(name), total=None, status="")

    def start(self, tokens: int) -> None:
        """Note how many tokens earlier commands have trained the point on, before its first step."""
        self._sweep.move(self._name, tokens)

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
        self._sweep.begin()
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
        self._sweep.begin()
        self._sweep.move(self._name, tokens)
        if now - self._shown < self._interval and tokens < total:
            return
        self._shown = now
        rate = (tokens - self._first_tokens) / max(now - self._began, 1e-9)
        unit = "tok" if noun == "tokens" else noun
        status = f"{rate:,.0f} {unit}/s  loss {loss.item():.4f}  l0 {l0.item():.1f}"
        left = self._sweep.describe_time_left() or f"{format_duration((total - tokens) / max(rate, 1e-9))} left"
        if self._bars is None or self._task is None:
            console.print(f"{self._name}: {tokens:,} of {total:,} {noun}  {status}  {left}", soft_wrap=True)
        else:
            is_shown_above = self._sweep.show()
            line = status if is_shown_above else f"{status}  {left}"
            self._bars.update(self._task, completed=tokens, total=total, status=line)

    def close(self) -> None:
        """Remove the line from the display. Another call has no effect."""
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class SweepProgress:
    """The display of a command: how much of its work is done, the time left, and a line for each running point."""

    def __init__(self, points: int, noun: str = "points", tokens: Mapping[str, int] | None = None) -> None:
        """Begin with nothing done.

        points, noun: number of points (or studies), and a plural for them
        tokens: name of a point -> tokens that it is trained and evaluated on; None: points alone are counted
        """
        self._points, self._finished, self._failed, self._pruned, self._noun = points, 0, 0, 0, noun
        self._work = Work(tokens or {})
        self._task: TaskID | None = None
        self._bars: Progress | None = None
        if console.is_terminal:
            name, status = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[status]}"))
            self._bars = Progress(name, BarColumn(bar_width=20), TaskProgressColumn(), status, console=console)

    @contextmanager
    def live(self) -> Iterator["SweepProgress"]:
        """Show the display on the terminal while the context lasts. Yields this object."""
        with self._bars or nullcontext():
            if self._bars is not None and self._points > 1:
                self._task = self._bars.add_task("sweep", total=self._work.total or self._points, status="")
                self.show()
            yield self

    def add_point(self, name: str) -> PointProgress:
        """Add a line with this name to the display and return it. Close the line when the point has ended."""
        return PointProgress(self, self._bars, name, self._points)

    def begin(self) -> None:
        """Start the clock of the work, unless it runs."""
        self._work.begin()

    def move(self, name: str, tokens: int) -> None:
        """Note how many tokens a point has been trained on."""
        self._work.move(name, tokens)

    def describe_time_left(self) -> str:
        """Return how long all points will take; empty if that is unknown."""
        left = self._work.describe_time_left()
        return f"{left} for all {self._noun}" if left and self._points > 1 else left

    def count_finished(self, name: str = "", *, failed: bool, pruned: bool = False) -> None:
        """Count one more point as finished, failed or pruned, and show these numbers."""
        self._finished += not (failed or pruned)
        self._failed += failed
        self._pruned += pruned
        if self._work.total:
            self._work.finish(name, failed=failed or pruned)
        if not self.show() and self._points > 1:
            console.print(self._status, soft_wrap=True)

    def show(self) -> bool:
        """Update the bar of all points. Returns False if there is none."""
        if self._bars is None or self._task is None:
            return False
        done = self._work.done if self._work.total else self._finished + self._failed + self._pruned
        left = self._work.describe_time_left()
        self._bars.update(self._task, completed=done, status="  ".join(filter(None, [self._status, left])))
        return True

    @property
    def _status(self) -> str:
        others = f", {self._failed} failed" * (self._failed > 0) + f", {self._pruned} pruned" * (self._pruned > 0)
        return f"{self._finished} of {self._points} {self._noun} finished{others}"


def progress_callback(display: PointProgress, noun: str = "sequences of the next chunk") -> OnProgress:
    """Return a callback (done, total) that shows progress on `display` and checks for signals to stop.

    The callback raises Stopped if a signal has arrived. `noun`: a plural for the counted items
    """

    def on_progress(done: int, total: int) -> None:
        display.show_count(done, total, noun)
        signals.raise_if_stopped()

    return on_progress
