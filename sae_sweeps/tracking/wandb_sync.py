"""Runs on disk to the W&B server, by W&B's own `wandb beta sync`, and whether it has all of them.

Nothing here is imported that takes time or memory: the process of uploader.py runs beside the training.
"""

import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

MARK = ".synced"  # that W&B leaves beside the file of a run that it has sent
AT_ONCE = 20  # runs that are sent side by side
SILENT = "does not answer"
ANSWER_SECONDS = 5.0  # that a server may take to answer at all


def offline_runs(folder: Path) -> list[Path]:
    """The folders of the runs that are kept on disk for a point, a study or a sweep."""
    return [run for run in sorted((folder / "wandb").glob("offline-run-*")) if run.is_dir()]


def is_uploaded(run: Path) -> bool:
    return any(run.glob(f"*.wandb{MARK}"))


def unreachable_reason(server: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """Why a W&B server cannot be had, None if it answers anything but that it is broken."""
    try:
        with urlopen(Request(f"{server.rstrip('/')}/healthz"), timeout=seconds):
            return None
    except HTTPError as error:
        return f"{server} answers {error.code} {error.reason}" if error.code >= 500 else None
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        if isinstance(why, ssl.SSLError):
            return None  # it is there; which certificates are good is for W&B to say
        if isinstance(why, TimeoutError):
            return f"{server} {SILENT}"
        return f"{server} cannot be reached ({why})"


class Upload:
    """W&B's command at work on some runs. With `live` it follows those that are still being written to their ends."""

    def __init__(self, runs: Sequence[Path], *, live: bool = False) -> None:
        self.runs, self._said = runs, ""
        self._scratch = tempfile.TemporaryDirectory(prefix="wandb-sync-", ignore_cleanup_errors=True)
        options = ["--skip-synced", "-n", str(len(runs) if live else AT_ONCE), *(["--live"] if live else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "wandb", "beta", "sync", *options, *map(str, runs)],
            env={**os.environ, "WANDB_DIR": self._scratch.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            before, sign, said = line.partition("Error: ")  # of an exception: that there is no key, say
            if line.startswith("wandb: ERROR "):
                self._said = line.removeprefix("wandb: ERROR ").strip()
            elif sign and " " not in before:
                self._said = said.strip()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the command has ended, within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> str | None:
        """End the command if it has not ended. Takes back W&B's marks of runs of which it could not send all: it marks
        those as well. Returns what it said was wrong."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(0.2)  # its service, which has the pipe too, ends a moment later
        wrong = _errors(Path(self._scratch.name).glob("wandb/logs/debug-sync*.log"))
        for run in self.runs:
            for file, why in wrong.items():
                if Path(file).parent.resolve() == run.resolve():
                    self._said = self._said or why
                    for mark in run.glob(f"*.wandb{MARK}"):
                        mark.unlink(missing_ok=True)
        self._scratch.cleanup()
        return self._said or None


def _errors(logs: Iterable[Path]) -> dict[str, str]:
    """What W&B's logs say of the files of runs that it could not send in whole: a full quota, say, or an artifact that
    was refused."""
    found: dict[str, str] = {}
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                level, said, file = record["level"], record["msg"], record["sync_path"]
            except (ValueError, KeyError, TypeError):
                continue
            if level.startswith("ERROR") and not said.startswith("api:"):  # what comes of that is told as well
                found[file] = " ".join(said.split())[:300]
    return found
