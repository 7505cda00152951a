"""Runs commands in children of a process that has imported the large libraries, which saves each command seconds.

`python -m tests.prefork` reads a command per line from stdin, as JSON, and answers with the child's process number and,
when the child has ended, with its exit code. A child begins where a new process would be after its first imports.
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
        child = os.fork()
        if child == 0:
            return _become(json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(command: dict) -> None:
    """Run the command in this process, and end it as Python does, but without freeing modules, which takes a second.

    An exception of launch.py other than SystemExit is left to Python.
    """
    for number, file in enumerate(command["output"], 1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
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

    def run(
        self, words: Sequence[str], cwd: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `python launch.py` with these arguments, as `subprocess.run` does with its output captured."""
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            command = {"words": words, "cwd": str(cwd), "environment": environment, "output": [out.name, err.name]}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            child = int(self._process.stdout.readline())
            ended, _, _ = select.select([self._process.stdout], [], [], timeout)
            if not ended:
                os.kill(child, signal.SIGKILL)
            code = int(self._process.stdout.readline())
            if not ended:
                raise subprocess.TimeoutExpired(list(words), timeout, out.read(), err.read())
            return subprocess.CompletedProcess(list(words), code, out.read(), err.read())


def _select_fixed(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(FIXED)}


if __name__ == "__main__":
    main()
