"""Runs commands in children of a process that has imported the large libraries, which saves each command seconds.

`python -m tests.prefork` reads a request per line from stdin, as JSON, and answers each in a line: a command, with the
number of the child that runs it; the number of a child, with its exit code when it has ended, or, if it is negative,
with `null` while it runs. A child begins where a new process would be after its first imports.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from sae_sweeps.runtime.places import PROJECT

# without wandb: its import makes a folder, which the first child that ends would remove
IMPORTED = (
    "torch", "numpy", "transformers", "transformer_lens.model_bridge", "datasets", "safetensors.torch", "hydra.utils",
    "omegaconf", "rich.console", "rich.live", "rich.table", "filelock", "psutil", "pyarrow.parquet",
)  # fmt: skip
FIXED = ("HF_", "OMP_", "GOMP_", "MKL_", "PYTHON", "TORCH", "TRANSFORMERS_")  # variables that are read during an import


def main() -> None:
    """Answer until stdin ends; in a child, run its command and return."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each collection in a child copies all of this memory
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            ended, status = os.waitpid(abs(request), os.WNOHANG if request < 0 else 0)
            print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
            continue
        child = os.fork()
        if child == 0:
            return _become(request)
        print(child, flush=True)


def _become(command: dict) -> None:
    """Run the command in this process, and end it as Python does, but without freeing modules, which takes a second.

    An exception of launch.py other than SystemExit is left to Python.
    """
    for number, file in enumerate(command["output"], 1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes background jobs ignore it
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    script = str(PROJECT / "launch.py")
    sys.argv, sys.path[0] = [script, *command["words"]], str(PROJECT)
    code = None
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            raise
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


class Prefork:
    """The process that has imported the libraries, and the commands that its children run."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._fixed = _select_fixed(environment)
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.prefork"], cwd=PROJECT, env=environment, **streams
        )

    def has(self, environment: dict[str, str]) -> bool:
        """Return whether a command with these variables may run in a child of this process."""
        return self._fixed == _select_fixed(environment) and self._process.poll() is None

    def start(self, words: Sequence[str], cwd: Path, environment: dict[str, str]) -> "Child":
        """Start `python launch.py` with these arguments, as `subprocess.Popen` does."""
        files = tempfile.NamedTemporaryFile("r"), tempfile.NamedTemporaryFile("r")  # noqa: SIM115  closed with the child
        names = [file.name for file in files]
        self.send({"words": words, "cwd": str(cwd), "environment": environment, "output": names})
        return Child(self, self.receive(), *files)

    def send(self, request: dict | int) -> None:
        """Write a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def receive(self, timeout: float | None = None) -> Any:
        """Return the answer, or None if there is none after so many seconds."""
        assert self._process.stdout is not None
        if timeout is None or select.select([self._process.stdout], [], [], timeout)[0]:
            return json.loads(self._process.stdout.readline())
        return None


class Child:
    """A command in a child of the process that has imported the libraries; what tests use of `subprocess.Popen`."""

    def __init__(self, prefork: Prefork, pid: int, out: IO[str], err: IO[str]) -> None:
        self._prefork, self._out, self._err = prefork, out, err
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        if self.returncode is None:
            self._prefork.send(-self.pid)
            self.returncode = self._prefork.receive()
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """Return the exit code when the command has ended.

        Raises: TimeoutExpired after so many seconds; the command is killed then.
        """
        if self.returncode is None:
            self._prefork.send(self.pid)
            self.returncode = self._prefork.receive(timeout)
            if self.returncode is None:
                self.kill()
                self.returncode = self._prefork.receive()
                raise subprocess.TimeoutExpired(["launch.py"], timeout, self._out.read(), self._err.read())
        return self.returncode

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Return what the command has printed, when it has ended."""
        self.wait(timeout)
        return self._out.read(), self._err.read()

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command."""
        self.send_signal(signal.SIGKILL)


def _select_fixed(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(FIXED)}


if __name__ == "__main__":
    main()
