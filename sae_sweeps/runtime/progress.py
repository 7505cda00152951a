"""What a person sees while a sweep runs: bars on a terminal, plain lines in a pipe or a batch log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import console

if TYPE_CHECKING:  # Hydra sets up logging, and so this file, before anything is checked: torch would come too early
    from torch import Tensor

OnProgress = Callable[[int, int], None]  # called with (done, total)

SECONDS_BETWEEN_LINES = 10.0  # of a point, where there is no terminal; longer where there are more than six
SECONDS_BETWEEN_FRAMES = 0.2


class PointProgress:
    """The line of one point: what it does now, how far it is, how fast, its loss and L0."""

    def __init__(self, bars: Progress | None, name: str, points: int) -> None:
        self._bars, self._name = bars, name
        self._interval = SECONDS_BETWEEN_FRAMES if bars is not None else SECONDS_BETWEEN_LINES * max(1, points / 6)
        self._began: float | None = None
        self._shown = self._first_tokens = self._latest_tokens = 0.0
        self._task = None if bars is None else bars.add_task(name, total=None, status="")

    def stage(self, what: str) -> None:
        """Say what is done now, where that takes a while."""
        if self._bars is None or self._task is None:
            console.print(f"{self._name}: {what}", soft_wrap=True)
        else:
            self._bars.update(self._task, status=what)

    def waiting(self, done: int, total: int, of: str = "sequences of the next chunk") -> None:
        """Say how far that is which the others wait for, where it takes a while."""
        now = time.monotonic()
        if self._began is None or done == total:
            self._began = self._shown = now
        elif now - self._shown >= self._interval:
            self._shown = now
            self.stage(f"{done:,} of {total:,} {of}")
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def progress(self, tokens: int, total: int, loss: "Tensor", l0: "Tensor", of: str = "tokens") -> None:
        """Called at every step; shown a few times a second on a terminal, as a line every few seconds elsewhere."""
        now = time.monotonic()
        if self._began is None or not 0 < self._latest_tokens <= tokens:  # the first, or of something new
            self._began, self._shown, self._first_tokens = now, now, tokens
        self._latest_tokens = tokens
        if now - self._shown < self._interval and tokens < total:
            return
        self._shown = now
        rate = (tokens - self._first_tokens) / max(now - self._began, 1e-9)
        status = f"{rate:,.0f} {'tok' if of == 'tokens' else of}/s  loss {loss.item():.4f}  l0 {l0.item():.1f}"
        if self._bars is None or self._task is None:
            left = (total - tokens) / max(rate, 1e-9)
            console.print(f"{self._name}: {tokens:,} of {total:,} {of}  {status}  {left:.0f} s left", soft_wrap=True)
        else:
            self._bars.update(self._task, completed=tokens, total=total, status=status)

    def close(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class SweepProgress:
    """All that is shown of a sweep while it runs: a bar for its points (or studies), and one for the point at work."""

    def __init__(self, points: int, noun: str = "points") -> None:
        self._points, self._finished, self._failed, self._noun = points, 0, 0, noun
        self._task: TaskID | None = None
        self._bars: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn())
            self._bars = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[status]}"), console=console)

    @contextmanager
    def live(self) -> Iterator["SweepProgress"]:
        """Show it, and make it the one that `point_display` adds to."""
        global _running
        _running = self
        try:
            with self._bars or nullcontext():
                if self._bars is not None and self._points > 1:
                    self._task = self._bars.add_task(
                        "sweep", total=self._points, status=f"0 of {self._points} {self._noun}"
                    )
                yield self
        finally:
            _running = None

    def point(self, name: str) -> PointProgress:
        return PointProgress(self._bars, name, self._points)

    def point_finished(self, *, failed: bool) -> None:
        self._finished += not failed
        self._failed += failed
        status = f"{self._finished} of {self._points} {self._noun} finished" + f", {self._failed} failed" * (
            self._failed > 0
        )
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=1, status=status)
        elif self._points > 1:
            console.print(status, soft_wrap=True)


_running: SweepProgress | None = None


def point_display(name: str) -> PointProgress:
    """A line for a point, in the display of the sweep that runs; Hydra stands between the two and passes nothing on."""
    return (_running or SweepProgress(1)).point(name)


def progress_callback(shown: PointProgress, of: str = "sequences of the next chunk") -> OnProgress:
    """Have the display hear how many are done of how many; a plea to stop is heard there too."""

    def told(done: int, total: int) -> None:
        shown.waiting(done, total, of)
        signals.raise_if_stopped()

    return told
