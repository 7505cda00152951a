"""Runs commands and measures them: time, peak memory, output; and shows the progress."""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from plan import PROJECT

NO_MEMORY = re.compile(r"out of memory|OutOfMemory|not enough memory|MemoryError|can't allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int  # exit code; negative: minus the signal that ended it
    seconds: float
    peak_bytes: int  # peak of its resident memory
    output: str
    errors: str
    timed_out: bool

    @property
    def failure(self) -> str | None:
        """Return why it failed, in a word or two; None if it succeeded."""
        if self.code == 0:
            return None
        if self.timed_out:
            return "timeout"
        if NO_MEMORY.search(self.errors):
            return "out of memory"
        if self.code < 0:
            return f"ended by signal {-self.code}"
        lines = self.errors.split("\n")
        raised = [line.split(":")[0] for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return raised[-1].split(".")[-1] if raised else f"exit code {self.code}"

    @property
    def last_error_line(self) -> str:
        """Return the last line that it wrote to stderr, at most 300 characters, with paths relative to the project."""
        return (self.errors.strip().split("\n")[-1])[:300].replace(f"{PROJECT}/", "")


def run(command: Sequence[str], timeout: float, settings: Mapping[str, str] | None = None) -> Ended:
    """Run `command` in the project's folder and return how it ended. It is killed after `timeout` seconds.

    `settings`: environment variables to add.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        is_late = threading.Event()
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**os.environ, **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )

        def end() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = _read_text(output), _read_text(errors)
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Ended(process.returncode, seconds, peak_bytes, *texts, is_late.is_set())


def _read_text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


class Progress:
    """Prints a line per measurement, with an estimate of the time that is left."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Start the clock. `weights`: the expected duration of each measurement, in any unit."""
        self._weights, self._done = weights, 0
        self._began = time.monotonic()

    def report(self, text: str) -> None:
        """Print the result of the next measurement."""
        self._done += 1
        elapsed = time.monotonic() - self._began
        done = sum(self._weights[: self._done])
        left = elapsed * (sum(self._weights) - done) / done
        count = f"{self._done:{len(str(len(self._weights)))}}/{len(self._weights)}"
        print(f"[{count}  {format_clock(elapsed)}, about {format_clock(left)} left] {text}", flush=True)


def format_clock(seconds: float) -> str:
    """Return a duration as minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"
