"""Uploads offline W&B runs with `wandb beta sync`, and checks whether a run was uploaded completely.

All imports are light, because background_sync.py imports this module in a process next to the training.
"""

import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from sae_sweeps.runtime import leftovers

MARK = ".synced"  # suffix of the file that W&B writes next to a .wandb file once that file has been sent
INCOMPLETE = "incomplete"  # file in the folder of a run that W&B stopped writing
PARALLEL_RUNS = 20  # runs that one command sends in parallel
SERVICE = "WANDB_SERVICE"  # variable that names a running service of W&B to the processes that a process begins
LINKED_RUNS = 2  # most runs that are linked one by one: a point and the comparison
SILENT = "does not answer"  # end of the message about a timeout
ANSWER_SECONDS = 5.0  # timeout of a request to a server, in seconds
LOGGED_ERROR = "wandb: ERROR "  # start of an error line in the output of `wandb beta sync`
PIPE_SECONDS = 0.2  # wait for the last output: W&B's service closes the pipe a moment after the command ends
ADDRESS = re.compile(r"\bView run .* at (https?://\S+/runs/\S+)")  # a line of the output: where a run can be seen
LONGEST_MESSAGE = 300  # characters to which an error from W&B's log is cut
# settings of an upload that a person waits for: by default W&B tries again for hours, whatever the server answers
IMPATIENT = {
    f"WANDB__{part}_{name}": value
    for part in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for name, value in (("RETRY_MAX", "3"), ("RETRY_WAIT_MAX_SECONDS", "4"))
}
IMPATIENT |= {f"WANDB__{part}_TIMEOUT_SECONDS": "60" for part in ("GRAPHQL", "FILE_STREAM")}


def offline_runs(folder: Path) -> list[Path]:
    """Return the folders of the offline W&B runs inside the folder of a point, study or sweep."""
    return [run for run in sorted((folder / "wandb").glob("offline-run-*")) if run.is_dir()]


def is_uploaded(run: Path) -> bool:
    """Return whether the offline W&B run in this folder was uploaded completely."""
    return any(run.glob(f"*.wandb{MARK}"))


def mark_incomplete(run: Path) -> None:
    """Mark the run in this folder as incomplete, because W&B stopped writing it."""
    (run / INCOMPLETE).touch()


def is_incomplete(run: Path) -> bool:
    """Return whether W&B stopped writing the run in this folder."""
    return (run / INCOMPLETE).exists()


def unreachable_reason(server: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """Return why the W&B server (URL) is unreachable; None if it answers with an HTTP status below 500.

    seconds: timeout of the request
    """
    try:
        with urlopen(Request(f"{server.rstrip('/')}/healthz"), timeout=seconds):
            return None
    except HTTPError as error:
        return f"{server} answers {error.code} {error.reason}" if error.code >= 500 else None
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return None  # the server is reachable, and W&B decides itself which certificates it accepts
        if isinstance(cause, TimeoutError):
            return f"{server} {SILENT}"
        return f"{server} cannot be reached ({cause})"


class Upload:
    """A process `wandb beta sync` that uploads runs (folders).

    With `live`, runs may still be written, and W&B tries again for as long as it likes. Otherwise it gives up after a
    few failed requests (IMPATIENT).

    addresses: where the runs can be seen, as W&B prints them
    reasons: run -> the answer of the server or of W&B about it; filled by `close`
    """

    def __init__(self, runs: Sequence[Path], *, live: bool = False) -> None:
        self.runs, self._error = runs, ""
        self.addresses: list[str] = []
        self.reasons: dict[Path, str] = {}
        for run in runs:
            with contextlib.suppress(OSError):  # without it W&B reports a failure after it has sent the rest
                (run / "files").mkdir(exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(
            prefix="wandb-sync-", suffix=leftovers.suffix(), ignore_cleanup_errors=True
        )
        options = ["--skip-synced", "-n", str(len(runs) if live else PARALLEL_RUNS), *(["--live"] if live else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "wandb", "beta", "sync", *options, *map(str, runs)],
            env={**({} if live else IMPATIENT), **_without_service(), "WANDB_DIR": self._scratch.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def _read_output(self) -> None:
        """Read the output of the command until it ends, and store the addresses of runs and the last error message."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (found := ADDRESS.search(line)) is not None:
                self.addresses.append(found[1])
            exception, separator, message = line.partition("Error: ")  # the last line of a traceback
            if line.startswith(LOGGED_ERROR):
                self._error = line.removeprefix(LOGGED_ERROR).strip()
            elif separator and " " not in exception:
                self._error = message.strip()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the command has ended, for at most `seconds`; None for no limit. Returns whether it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> str | None:
        """Stop the command if it still runs. Returns the error message of the command; None if there was no error.

        W&B marks a run as synced even if the server refused a part of the run. Such marks are removed.
        """
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(PIPE_SECONDS)
        errors, retries = _read_log(self._scratch.name)
        for run in self.runs:
            if (message := _find_message(errors, run)) is not None:
                self._error = self._error or message
                self.reasons[run] = message
                for mark in run.glob(f"*.wandb{MARK}"):
                    mark.unlink(missing_ok=True)
            elif not is_uploaded(run) and (message := _find_message(retries, run)) is not None:
                self._error = self._error or message
                self.reasons[run] = message
        self._scratch.cleanup()
        return self._error or None

    def is_refused(self) -> bool:
        """Return whether a request of the running command has failed."""
        return any(_read_log(self._scratch.name))


def describe_addresses(addresses: Sequence[str]) -> str | None:
    """Return a text with links to runs, if there are few, and to their project; None if there are none.

    addresses: of the runs
    """
    runs = sorted(set(addresses))
    if not runs:
        return None
    projects = sorted({run.rpartition("/runs/")[0] for run in runs})
    linked = runs if len(runs) <= LINKED_RUNS else []
    return "  ".join(["W&B:", *linked, f"{'project ' * bool(linked)}{' '.join(projects)}"])


def _without_service() -> dict[str, str]:
    """Return the environment without the W&B service of this process or one that began it: its log is elsewhere."""
    return {name: value for name, value in os.environ.items() if name != SERVICE}


def _find_message(messages: dict[str, str], run: Path) -> str | None:
    """Return the message about the run in a folder; None if there is none. `messages`: path of a .wandb file -> text"""
    return next((text for file, text in messages.items() if Path(file).parent.resolve() == run.resolve()), None)


def _read_log(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return two dictionaries, path of a .wandb file -> message: errors, and failed requests that W&B repeats.

    A file with an error was not sent completely. Examples: the quota is full, the run was deleted on the server.

    folder: the value of WANDB_DIR of the process that uploads
    """
    errors: dict[str, str] = {}
    retries: dict[str, str] = {}
    for log in Path(folder).glob("wandb/logs/debug-sync*.log"):
        for line in log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                level, message, file = record["level"], record["msg"], record["sync_path"]
            except (ValueError, KeyError, TypeError):
                continue
            # errors of single requests ("api:") may be retried; if they matter, another error follows
            if level.startswith("ERROR") and not message.startswith("api:"):
                errors.setdefault(file, _shorten(str(record.get("error") or message)))
            elif message.startswith("api: retrying"):
                status, text = record.get("status"), record.get("body") or record.get("error") or message
                retries[file] = _shorten(f"HTTP {status}: {text}" if status else str(text))
    return errors, retries


def _shorten(message: str) -> str:
    """Return an error of W&B in one line, without what it says about its own attempts before the server's answer."""
    return " ".join(message.rpartition("while retrying: ")[2].split())[:LONGEST_MESSAGE]
