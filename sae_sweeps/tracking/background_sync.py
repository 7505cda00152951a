"""A background process that uploads W&B runs while the training process writes them.

`python -m sae_sweeps.tracking.background_sync SERVER`

The training process only writes runs to its disk, so no server can stop it or slow it down. It writes the folders of
runs to stdin of the background process, one per line, and reads error messages from that process's stdout. When the
training process ends, even if it is killed, the background process has up to LONGEST_WAIT_SECONDS to upload the rest;
`task=sync` uploads what remains after that.
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

from sae_sweeps.tracking.wandb_sync import SILENT, Upload, describe_addresses, is_uploaded, unreachable_reason

log = logging.getLogger(__name__)

BATCH_SECONDS = 2.0  # runs that start within this time, such as the runs of a pack, share one upload command
RETRY_SECONDS = 60.0  # seconds from a failed upload to the next attempt
CHECK_SECONDS = 15.0  # seconds between two checks whether the server is reachable
NOTICE_SECONDS = 3.0  # seconds of waiting at the end before a log line explains the wait
LONGEST_WAIT_SECONDS = 60.0  # longest total wait for uploads after the training, in seconds
PROGRESS_SECONDS = 20.0  # longest wait after the training for one more finished upload, if the server answers
ANSWERS = "answers again"  # line of the background process, which takes back an earlier one
AT = "at "  # start of a line of the background process with the address of a run
SILENT_SECONDS = 8.0  # longest such wait if the server does not answer, as it may only be busy


class Uploads:
    """The upload processes of a training process: one per W&B server, started with the server's first run."""

    def __init__(self) -> None:
        self._uploaders: dict[str, Uploader] = {}

    def add(self, server: str, run: Path, hint: str) -> None:
        """Start to upload a run while it is written.

        server: URL of the W&B server
        run: folder of the offline run
        hint: command that uploads the run later, for log messages
        """
        if server not in self._uploaders:
            self._uploaders[server] = Uploader(server)
        self._uploaders[server].add(run, hint)

    def finish(self) -> None:
        """Wait for unfinished uploads while they make progress, and log how many runs were not uploaded."""
        while self._uploaders:
            _, uploader = self._uploaders.popitem()
            uploader.finish()


class Uploader:
    """The training process's handle of one background process, which uploads runs to one W&B server."""

    def __init__(self, server: str) -> None:
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._runs: list[Path] = []
        self._server, self._hint, self._has_warned = server, "", False
        self._addresses: list[str] = []
        with block_signal(signal.SIGUSR1):
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, server],
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # so that Ctrl-C stops the training alone
            )
        self._listener = threading.Thread(target=self._log_problems, daemon=True)
        self._listener.start()
        atexit.register(self.finish)

    def add(self, run: Path, hint: str) -> None:
        """Start to upload a run while it is written. `run`: folder; `hint`: command that uploads the run later."""
        self._runs.append(run)
        self._hint = hint
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the process has ended; `finish` logs what was not uploaded
            self._process.stdin.write(f"{run}\n")
            self._process.stdin.flush()

    def _log_problems(self) -> None:
        """Log the first problem that the background process prints, and its end. Keep the addresses of runs."""
        assert self._process.stdout is not None
        for line in map(str.strip, self._process.stdout):
            if line.startswith(AT):
                self._addresses.append(line.removeprefix(AT))
            elif line == ANSWERS:
                if self._has_warned:
                    log.info("W&B: %s answers again, and the runs are being uploaded", self._server)
                self._has_warned = False
            elif not self._has_warned:
                self._has_warned = True
                effect = "Training continues and the runs are kept on this disk"
                log.warning("W&B: %s. %s. To upload them later: %s", line, effect, self._hint)

    def finish(self) -> None:
        """Wait for unfinished uploads while they make progress, and log how many runs were not uploaded."""
        atexit.unregister(self.finish)
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(NOTICE_SECONDS)
            except subprocess.TimeoutExpired:
                log.info("W&B: uploading the remaining runs, for at most %.0f s", LONGEST_WAIT_SECONDS + SILENT_SECONDS)
                self._process.wait(LONGEST_WAIT_SECONDS + SILENT_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._listener.join(1)
        left = [run for run in self._runs if run.is_dir() and not is_uploaded(run)]
        if left:
            log.warning(
                "W&B: %d of %d runs were not uploaded. To upload them: %s", len(left), len(self._runs), self._hint
            )
        if (links := describe_addresses(self._addresses)) is not None:
            log.info("%s", links)


@contextlib.contextmanager
def block_signal(number: signal.Signals) -> Iterator[None]:
    """Block a signal inside this context and in all processes that are started there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Follower:
    """The work of the background process: uploads runs until the training process ends, and shortly after.

    server: URL of the W&B server
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._due: dict[Path, float] = {}  # run -> time.monotonic at which the upload may start
        self._active: list[Upload] = []
        self._printed: set[str] = set()
        self._is_out = False  # whether an outage was printed that has not ended
        self._training_ended = threading.Event()
        self._unreachable: str | None = None  # why the server is unreachable; set only after the training has ended

    def _watch_server(self) -> None:
        """Check every CHECK_SECONDS whether the server is reachable, and every second once the training has ended."""
        previous = None
        while not self._training_ended.wait(CHECK_SECONDS):
            if not self._active:
                continue
            reason = unreachable_reason(self._server)
            if previous is not None:  # one failed check may only mean that the server is busy
                self._print(reason)
                self._is_out = self._is_out or reason is not None
            if reason is None and self._is_out:
                self._is_out = False
                self._printed.clear()  # the next outage is another one
                self._print(ANSWERS)
            previous = reason
        while True:
            self._unreachable = unreachable_reason(self._server)
            time.sleep(1.0)

    def follow(self, lines: "queue.Queue[str | None]") -> None:
        """Upload the runs whose folders arrive in the queue until None arrives, then upload the rest."""
        threading.Thread(target=self._watch_server, daemon=True).start()
        latest = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=0.2)
                if line is None:
                    break
                latest = self._due[Path(line)] = time.monotonic()
            now = time.monotonic()
            if now - latest > BATCH_SECONDS:
                self._start_uploads({run for run, due in self._due.items() if due <= now})
            for run in self._close_ended():
                self._due[run] = now + RETRY_SECONDS
        self._training_ended.set()
        self._upload_rest()

    def _start_uploads(self, runs: set[Path]) -> None:
        for run in runs:
            del self._due[run]
        existing = sorted(run for run in runs if run.is_dir() and not is_uploaded(run))
        if existing:
            self._active.append(Upload(existing, live=True))

    def _close_ended(self) -> list[Path]:
        """Close the uploads that have ended. Returns the runs that these uploads failed to send completely."""
        ended = [upload for upload in self._active if upload.wait(0)]
        self._print_addresses()
        for upload in ended:
            self._active.remove(upload)
            self._print(upload.close())
        return [run for upload in ended for run in upload.runs if not is_uploaded(run)]

    def _upload_rest(self) -> None:
        """Upload the remaining runs after the training, for LONGEST_WAIT_SECONDS at most and only with progress."""
        self._start_uploads(set(self._due))
        began = progress = time.monotonic()
        done = 0
        while self._active:
            for upload in self._active:
                upload.wait(0.1)
            self._print_addresses()
            uploaded = sum(is_uploaded(run) for upload in self._active for run in upload.runs)
            self._close_ended()
            now = time.monotonic()
            if uploaded != done:
                done, progress = uploaded, now
            if now - began > LONGEST_WAIT_SECONDS or now - progress > self._patience:
                break
        left = [run for upload in self._active for run in upload.runs]
        for upload in self._active:
            upload.close()
        if not all(map(is_uploaded, left)):
            self._print(self._unreachable or "the uploads did not finish in time")

    @property
    def _patience(self) -> float:
        """Return the seconds to wait for one more finished upload; 0 if the server cannot be reached."""
        if self._unreachable is None:
            return PROGRESS_SECONDS
        return SILENT_SECONDS if self._unreachable.endswith(SILENT) else 0.0

    def _print_addresses(self) -> None:
        for upload in self._active:
            for address in tuple(upload.addresses):
                self._print(f"{AT}{address}")

    def _print(self, problem: str | None) -> None:
        """Print a problem on stdout for the training process, unless it was printed before or is None."""
        if problem is not None and problem not in self._printed:
            self._printed.add(problem)
            with contextlib.suppress(OSError):
                print(problem, flush=True)


def main(server: str) -> None:
    """Upload the runs whose folders arrive on stdin, until stdin is closed. `server`: URL of the W&B server."""
    os.nice(10)
    lines: queue.Queue[str | None] = queue.Queue()

    def read_stdin() -> None:
        for line in sys.stdin:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read_stdin, daemon=True).start()
    Follower(server).follow(lines)


if __name__ == "__main__":
    main(sys.argv[1])
