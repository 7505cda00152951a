"""A plea to stop, as Slurm sends before a timeout or a preemption: heard at once, obeyed where it costs nothing.

A signal can come in the middle of a step, when there is nothing whole to save. So it is only noted, and whoever is at
work looks between two steps whether one has come.
"""

import signal
from types import FrameType


class Stopped(BaseException):
    """The process was told to stop. What was at work has saved its state, or still has the one from before."""


_heard: list[str] = []


def install_handlers(*signals: signal.Signals) -> None:
    """From now on, take these signals as the plea to stop."""

    def hear(number: int, _: FrameType | None) -> None:
        _heard.append(signal.Signals(number).name)

    for one in signals:
        signal.signal(one, hear)


def raise_if_stopped() -> None:
    """Raises: Stopped, naming the signal, if one has come."""
    if _heard:
        raise Stopped(_heard[0])


def reset() -> None:
    """Begin anew, as in a fresh process."""
    _heard.clear()
