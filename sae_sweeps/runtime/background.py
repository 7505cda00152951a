"""A call that runs in a thread of its own while the main thread works, and that can be ended early."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sae_sweeps.runtime.signals import Stopped

T = TypeVar("T")  # what the call returns

SECONDS_TO_END = 5.0  # longest wait for a cancelled call, which may be in the middle of a request to a server

_own = threading.local()  # of the thread of a call: `cancelled`, the event that asks the call to end


class Background(Generic[T]):
    """A call in a thread. `result` returns what the call returned, or raises in the main thread what it raised."""

    def __init__(self, call: Callable[[], T], *, is_needed: bool = True) -> None:
        """Start the call. `is_needed`: the process must not end before the call has."""
        self._call: Callable[[], T] | None = call
        self._error: BaseException | None = None
        # Events, because Thread.join believes that a thread has ended once Ctrl-C has interrupted it
        self._cancelled, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=not is_needed).start()

    def _run(self) -> None:
        call, self._call = self._call, None  # so that what the call holds is freed when it ends
        assert call is not None, "a call is started once"
        _own.cancelled = self._cancelled
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Wait until the call has ended, in whatever way."""
        self._ended.wait()

    def result(self) -> T:
        """Wait until the call has ended, and return its result. Raises: the error of the call, each time."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Ask the call to end, and wait until it has, or for SECONDS_TO_END."""
        self._cancelled.set()
        self._ended.wait(SECONDS_TO_END)


def raise_if_cancelled() -> None:
    """Raise Stopped if this thread is that of a call that was cancelled; otherwise do nothing."""
    cancelled = getattr(_own, "cancelled", None)
    if cancelled is not None and cancelled.is_set():
        raise Stopped("cancelled")
