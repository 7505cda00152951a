"""Slurm's commands as small scripts in a folder at the front of PATH."""

import os
import stat
from pathlib import Path

import pytest

from sae_sweeps.sweep import slurm_queue
from sae_sweeps.sweep.slurm_queue import Job

COMMANDS = ("squeue", "sacct", "scontrol", "sbatch", "scancel", "srun")
COUNTING = 'echo "Submitted batch job $((100 + $(wc -l < "$0.calls")))"'  # 101, 102, ...


class FakeSlurm:
    """Each command does what it was told by `does`, and keeps its arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        slurm_queue.find_end_states.cache_clear()
        for command in COMMANDS:
            self.does(command, "echo 'nobody expected this call' >&2; exit 99")

    def does(self, command: str, shell: str) -> None:
        """Have the command run these lines of shell from now on."""
        file = self.folder / command
        file.write_text(f'#!/bin/sh\necho "$*" >> "$0.calls"\n{shell}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def says(self, command: str, text: str) -> None:
        """Have the command print this from now on."""
        (self.folder / f"{command}.says").write_text(text)
        self.does(command, 'cat "$0.says"')

    def calls(self, command: str) -> list[str]:
        """The arguments of every call so far."""
        file = self.folder / f"{command}.calls"
        return file.read_text().splitlines() if file.exists() else []

    def queues(self, *jobs: Job) -> None:
        """Have squeue list these jobs."""
        self.says("squeue", "".join(line(job.id, job.name, job.state, job.restarts, job.reason) for job in jobs))

    def submits(self, largest: int = 1001) -> None:
        """Have sbatch take every job, arrays of at most `largest` tasks."""
        self.does("sbatch", COUNTING)
        self.says("scontrol", f"MaxArraySize            = {largest}\n")

    def misses(self, command: str) -> None:
        """Have no such command, nor any other program: what is on PATH is the fakes alone."""
        (self.folder / command).unlink()
        os.environ["PATH"] = str(self.folder)


def line(id: str, name: str, state: str, restarts: int | str, reason: str | None) -> str:
    """As squeue prints a job."""
    return f"{id:<40}{name:<100}{state:<24}{restarts:<10}{reason!s:<60}\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm-commands")
    monkeypatch.setenv("PATH", f"{fake.folder}{os.pathsep}{os.environ['PATH']}")
    for variable in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(variable)
    return fake
