"""The folders and files of the tiny sweep with all its studies, and the command run in this process."""

import itertools
import logging
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub as hub
import pytest

from sae_sweeps.runtime import signals
from sae_sweeps.runtime.places import PROJECT
from tests.tasks.exported import Api


@pytest.fixture(scope="session")
def model_settings(tiny) -> list[str]:
    """Return the overrides that set the sweep's model and text."""
    return [word for word in tiny if word.startswith(("model", "dataset"))]


def point(sweep: Path, title: str) -> Path:
    """Return the folder of the point whose name starts with `title`."""
    (found,) = sweep.glob(f"{title}-*")
    return found


def done(sweep: Path, task: str, title: str = "") -> list[Path]:
    """Return the folders of the finished studies whose names start with `title`."""
    return sorted(file.parent for file in sweep.glob(f"{task}/{title}*/results.json"))


def undo(sweep: Path, task: str) -> None:
    """Delete the studies of a task and their table."""
    shutil.rmtree(sweep / task)
    (sweep / f"{task}.csv").unlink()


def raise_at(call: int, error: type[BaseException]) -> Callable[[], None]:
    """Return a function in place of `signals.raise_if_stopped` that raises `error` when it is called so many times."""
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == call:
            raise error

    return check


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@dataclass
class Ran:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys) -> Iterator[Callable[..., Ran]]:
    """Yield a function that runs `python launch.py` with these arguments in this process."""
    root, numbers = logging.getLogger(), (signal.SIGTERM, signal.SIGUSR1)
    handlers, level = root.handlers[:], root.level
    signal_handlers = [signal.getsignal(number) for number in numbers]
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    signals.reset()

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["launch.py", *words])
        code = 0
        try:
            runpy.run_path(str(PROJECT / "launch.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return Ran(code, *capsys.readouterr())

    yield run
    root.handlers[:], root.level = handlers, level
    for number, handler in zip(numbers, signal_handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def api(monkeypatch) -> list:
    """Return the list of calls to the hub."""
    monkeypatch.setattr(Api, "calls", [])
    monkeypatch.setattr(hub, "HfApi", Api)
    return Api.calls
