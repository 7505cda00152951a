"""Reads the rows of a text, and reads on at the same row after a failure of the network."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.background import raise_if_cancelled
from sae_sweeps.runtime.errors import BrokenTextError, ConfigError, describe_error
from sae_sweeps.runtime.network import is_network_error

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before an attempt to reopen a text; each wait is twice the one before
SIGNAL_SECONDS = 0.5  # seconds between two checks for a signal while waiting
RERUN = "rerun the command, which resumes every point where it is now"


T = TypeVar("T")  # what is made of a row


class ReopenedRows(Generic[T]):
    """The rows of a data set, one by one. After a failure of the network the data set is opened again at its row.

    A data set that has `state_dict` (the streamed ones of `datasets`) is opened at its row at once; of any other, the
    rows before are read again and left out. The last row before a failure is read a second time and compared, so that
    the texts are those of a reading without a failure.
    """

    def __init__(
        self, load: Callable[[], Iterable[Any]], read: Callable[[Any, int], T], source: str, retry_seconds: float
    ) -> None:
        """Prepare to read. Nothing is opened yet.

        load: opens the data set at its first row
        read: returns what is yielded of a row; its arguments are the row and the row's number, from 0
        source: name of the data set or file, for messages
        retry_seconds: longest total wait for one row, in seconds (dataset.retry_seconds)
        """
        self._load, self._read, self._source, self._retry_seconds = load, read, source, retry_seconds
        self._row = 0  # number of the next row, from 0; all rows before it have been yielded
        self._last: T | None = None  # what was yielded of the row before
        self._state: Any = None  # the data set's state before that row, if it has states

    def __iter__(self) -> Iterator[T]:
        """Yield what `read` returns of each row.

        Raises: BrokenTextError if a row cannot be read, for the network after `retry_seconds`; Stopped if a signal
        arrives while the network is waited for. An error at the first row that another attempt cannot mend is raised
        as it is, and so are errors of the project that name the row.
        """
        waited = 0.0
        while True:
            try:
                for found in self._open():
                    if waited:
                        log.info("the text continues at row %d of %s", self._row, self._source)
                    self._row, self._last, waited = self._row + 1, found, 0.0
                    yield found
                return
            except Exception as error:
                waited += self._wait(error, waited)

    def _open(self) -> Iterator[T]:
        """Yield the rows from the next row on. Raises: BrokenTextError if the row before is not the same any more."""
        rows: Any = self._load()
        has_states = hasattr(rows, "state_dict") and hasattr(rows, "load_state_dict")
        iterator = iter(rows) if self._row == 0 else self._reopen(rows)
        while True:
            state = rows.state_dict() if has_states else None
            try:
                row = next(iterator)
            except StopIteration:
                return
            found = self._read(row, self._row)
            self._state = state
            yield found

    def _reopen(self, rows: Any) -> Iterator[Any]:
        """Return an iterator of `rows` from the next row on, after comparing the row before with the one known."""
        if self._state is not None:
            rows.load_state_dict(self._state)
            iterator = iter(rows)
        else:
            iterator = islice(iter(rows), self._row - 1, None)
        again = next(iterator, None)
        if again is None or self._read(again, self._row - 1) != self._last:
            raise BrokenTextError(
                f"the text broke off at row {self._row} of {self._source}, and another reading gives other rows: the "
                f"data set has changed. Fix: restore it, then {RERUN}; or train under another name"
            )
        return iterator

    def _wait(self, error: Exception, waited: float) -> float:
        """Wait before the next attempt to open the text, and return the seconds of the wait.

        waited: seconds that the row has been waited for so far
        Raises: `error` or a BrokenTextError made of it if another attempt is no use; Stopped if a signal arrives.
        """
        where = f"the text broke off at row {self._row} of {self._source}"
        if self._row == 0:
            where = f"the text {self._source} cannot be opened"
        cause = describe_error(error)
        if not is_network_error(error):
            if self._row == 0 or isinstance(error, ConfigError | BrokenTextError):
                raise error
            fix = f"make the row readable, then {RERUN}; or use another text"
            raise BrokenTextError(f"{where}: {cause}. Fix: {fix}") from error
        if waited >= self._retry_seconds:
            if self._row == waited == 0:
                raise error
            problem = f"{cause}. It was waited for {waited:.0f} s"
            raise BrokenTextError(
                f"{where}: {problem}. Fix: check the network, or raise dataset.retry_seconds, then {RERUN}"
            ) from error
        seconds = min(max(waited, FIRST_WAIT), LONGEST_WAIT, self._retry_seconds - waited)
        limit = f"{waited:.0f} of at most {self._retry_seconds:.0f} s (dataset.retry_seconds) are over"
        log.warning("%s (%s); trying again in %.0f s; %s", where, cause, seconds, limit)
        pause(seconds)
        return seconds


def take_row(row: T, number: int) -> T:
    """Return the row itself, for data sets whose rows need no reading."""
    return row


def pause(seconds: float) -> None:
    """Wait for a number of seconds. Raises: Stopped if a signal to stop arrives, or if this thread is cancelled."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        signals.raise_if_stopped()
        raise_if_cancelled()
        time.sleep(min(left, SIGNAL_SECONDS))
    signals.raise_if_stopped()
