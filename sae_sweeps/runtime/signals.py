"""Cooperative shutdown: handlers set a flag, training checks it between steps.

Slurm sends a signal before a time limit or a preemption. It may arrive in the middle of a step, when there is no
consistent state to save, so the handler only records it. The record is a module global because a signal handler belongs
to the whole process.
"""

import signal
from types import FrameType


class Stopped(BaseException):
    """A signal has asked this process to stop. Its points are saved, or still have their last checkpoint."""


_received: list[str] = []  # names of the signals, in the order of arrival


def install_handlers(*signals: signal.Signals) -> None:
    """Record these signals from now on as requests to stop."""

    def on_signal(number: int, _: FrameType | None) -> None:
        _received.append(signal.Signals(number).name)

    for one in signals:
        signal.signal(one, on_signal)


def raise_if_stopped() -> None:
    """Check whether a signal has arrived. Raises: Stopped, with the name of the first signal."""
    if _received:
        raise Stopped(_received[0])


def reset() -> None:
    """Forget all signals that have arrived."""
    _received.clear()
