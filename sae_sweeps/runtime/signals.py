"""Cooperative shutdown: signal handlers set a flag, and training checks the flag between steps.

Slurm sends a signal before a time limit or a preemption. The signal may arrive in the middle of a step, when there is
no consistent state to save, so the handler only records it. The record is a module global because a signal handler
belongs to the whole process.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CTRL_C = "Ctrl-C"
NOTICE = b"\nstopping after this step; Ctrl-C again stops at once, from the latest checkpoint\n"


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


@contextmanager
def deferring_interrupts() -> Iterator[None]:
    """Make the first Ctrl-C in this context a request to stop, so that the state is saved; a second one interrupts.

    The same holds for SIGTERM where it is handled like Ctrl-C. Nothing changes outside the main thread.
    """

    def on_interrupt(number: int, _: FrameType | None) -> None:
        if _received:
            raise KeyboardInterrupt
        _received.append(CTRL_C if number == signal.SIGINT else signal.Signals(number).name)
        os.write(2, NOTICE)  # printing is not safe here

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    deferred = [number for number in numbers if signal.getsignal(number) is signal.default_int_handler]
    for number in deferred:
        signal.signal(number, on_interrupt)
    try:
        yield
    finally:
        for number in deferred:
            signal.signal(number, signal.default_int_handler)


def raise_if_stopped() -> None:
    """Raise Stopped, with the name of the first signal, if a signal to stop has arrived; otherwise do nothing."""
    if _received:
        raise Stopped(_received[0])


def reset() -> None:
    """Forget all signals that have arrived so far, so that `raise_if_stopped` does nothing."""
    _received.clear()
