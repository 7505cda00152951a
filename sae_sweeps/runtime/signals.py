"""Cooperative shutdown: signal handlers set a flag, and training checks the flag between steps.

Slurm sends a signal before a time limit or a preemption. The signal may arrive in the middle of a step, when there is
no consistent state to save, so the handler only records it. The record is a module global because a signal handler
belongs to the whole process.
"""

import signal
from types import FrameType


class Stopped(BaseException):
    """Raised when a signal has asked this process to stop. The message is the signal's name.

    Not an Exception, so that code which handles a failed point does not catch it.
    """


_received: list[str] = []  # names of the received signals, in the order of arrival


def install_handlers(*signals: signal.Signals) -> None:
    """Install handlers that record these signals as requests to stop, instead of ending the process."""

    def on_signal(number: int, _: FrameType | None) -> None:
        _received.append(signal.Signals(number).name)

    for one in signals:
        signal.signal(one, on_signal)


def raise_if_stopped() -> None:
    """Raise Stopped, with the name of the first signal, if a signal to stop has arrived; otherwise do nothing."""
    if _received:
        raise Stopped(_received[0])


def reset() -> None:
    """Forget all signals that have arrived so far, so that `raise_if_stopped` does nothing."""
    _received.clear()
