"""A process beside the training that uploads its W&B runs while they are written.

`python -m sae_sweeps.tracking.background_sync SERVER`

The training process only ever writes runs to its disk, so no server can stop or slow it. It tells this one the folders
of its runs, one a line, and hears of it what is wrong. When it ends, however that happens, this one has a few
seconds for what is left; `task=sync` uploads the rest.
"""

import atexit
import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sae_sweeps.tracking.wandb_sync import SILENT, Upload, is_uploaded, unreachable_reason

log = logging.getLogger(__name__)

TOGETHER_SECONDS = 2.0  # between runs that are sent by one command, as those of a pack
RETRY_SECONDS = 60.0  # after an upload that failed
LOOK_SECONDS = 15.0  # between two looks at whether the server is there
AT_MOST_SECONDS = 60.0  # at the end, in all
TOLD_SECONDS = 3.0  # at the end, before it is told what is waited for
ALIVE_SECONDS = 20.0  # at the end, without another run being uploaded, for a server that answers
SILENT_SECONDS = 8.0  # the same for one that does not: it may be busy


class Uploader:
    """The process, as the training process sees it."""

    def __init__(self, server: str) -> None:
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._runs: list[Path] = []
        self._hint, self._told = "", False
        with block_signal(signal.SIGUSR1):
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, server],
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a Ctrl-C is not for it
            )
        self._listener = threading.Thread(target=self._hear, daemon=True)
        self._listener.start()
        atexit.register(self.finish)

    def add(self, run: Path, hint: str) -> None:
        """Have a run sent from now on. `hint` is the command that does so later."""
        self._runs.append(run)
        self._hint = hint
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, and `finish` tells what is left
            self._process.stdin.write(f"{run}\n")
            self._process.stdin.flush()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not self._told:
                self._told = True
                what = "what is not uploaded is kept on this disk, and training is not held up"
                log.warning("W&B: %s; %s. Upload it later: %s", line.strip(), what, self._hint)

    def finish(self) -> None:
        """Wait for the runs to be uploaded as long as that gets on, and tell of those that are not."""
        atexit.unregister(self.finish)
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(TOLD_SECONDS)
            except subprocess.TimeoutExpired:
                log.info("W&B: the last of the runs are being uploaded")
                self._process.wait(AT_MOST_SECONDS + SILENT_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._listener.join(1)
        left = [run for run in self._runs if run.is_dir() and not is_uploaded(run)]
        if left:
            log.warning("W&B: %d of %d runs are not uploaded: %s", len(left), len(self._runs), self._hint)


@contextlib.contextmanager
def block_signal(number: signal.Signals) -> Iterator[None]:
    """Have processes that are begun in here not hear a signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Follower:
    """What the process does."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._due: dict[Path, float] = {}  # when to begin with a run
        self._at_work: list[Upload] = []
        self._said: set[str] = set()
        self._over = threading.Event()
        self._gone: str | None = None  # why the server cannot be had, as last seen since the training was over

    def _look(self) -> None:
        """See now and then whether the server is there, and when the training is over."""
        before = None
        while not self._over.wait(LOOK_SECONDS):
            why = unreachable_reason(self._server) if self._at_work else None
            if before is not None:  # twice: it may just be busy
                self._say(why)
            before = why
        while True:
            self._gone = unreachable_reason(self._server)
            time.sleep(1.0)

    def follow(self, told: "queue.Queue[str | None]") -> None:
        """Send the runs that are told of, until there is None."""
        threading.Thread(target=self._look, daemon=True).start()
        latest = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                line = told.get(timeout=0.2)
                if line is None:
                    break
                latest = self._due[Path(line)] = time.monotonic()
            now = time.monotonic()
            if now - latest > TOGETHER_SECONDS:
                self._begin({run for run, due in self._due.items() if due <= now})
            for run in self._settle():
                self._due[run] = now + RETRY_SECONDS
        self._over.set()
        self._end()

    def _begin(self, runs: set[Path]) -> None:
        for run in runs:
            del self._due[run]
        here = sorted(run for run in runs if run.is_dir() and not is_uploaded(run))
        if here:
            self._at_work.append(Upload(here, live=True))

    def _settle(self) -> list[Path]:
        """Take leave of the uploads that have ended. Returns the runs of them that are not uploaded."""
        over = [upload for upload in self._at_work if upload.wait(0)]
        for upload in over:
            self._at_work.remove(upload)
            self._say(upload.close())
        return [run for upload in over for run in upload.runs if not is_uploaded(run)]

    def _end(self) -> None:
        """The training is over: send what is left as long as that gets on."""
        self._begin(set(self._due))
        began = progress = time.monotonic()
        done = 0
        while self._at_work:
            for upload in self._at_work:
                upload.wait(0.1)
            uploaded = sum(is_uploaded(run) for upload in self._at_work for run in upload.runs)
            self._settle()
            now = time.monotonic()
            if uploaded != done:
                done, progress = uploaded, now
            if now - began > AT_MOST_SECONDS or now - progress > self._patience:
                break
        left = [run for upload in self._at_work for run in upload.runs]
        for upload in self._at_work:
            upload.close()
        if not all(map(is_uploaded, left)):
            self._say(self._gone or "not all has arrived in time")

    @property
    def _patience(self) -> float:
        """Seconds that are waited for another run to be uploaded, by what is known of the server."""
        if self._gone is None:
            return ALIVE_SECONDS
        return SILENT_SECONDS if self._gone.endswith(SILENT) else 0.0

    def _say(self, problem: str | None) -> None:
        if problem is not None and problem not in self._said:
            self._said.add(problem)
            with contextlib.suppress(OSError):
                print(problem, flush=True)


def main(server: str) -> None:
    os.nice(10)
    told: queue.Queue[str | None] = queue.Queue()

    def hear() -> None:
        for line in sys.stdin:
            told.put(line.rstrip("\n"))
        told.put(None)

    threading.Thread(target=hear, daemon=True).start()
    Follower(server).follow(told)


if __name__ == "__main__":
    main(sys.argv[1])
