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
    """Commands that run the shell lines given to `does`, and record their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        slurm_queue.find_end_states.cache_clear()
        for command in COMMANDS:
            self.does(command, "echo 'the test did not expect this call' >&2; exit 99")

    def does(self, command: str, shell: str) -> None:
        """Make the command run these lines of shell from now on."""
        file = self.folder / command
        file.write_text(f'#!/bin/sh\necho "$*" >> "$0.calls"\n{shell}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def says(self, command: str, text: str) -> None:
        """Make the command print this text from now on."""
        (self.folder / f"{command}.says").write_text(text)
        self.does(command, 'cat "$0.says"')

    def calls(self, command: str) -> list[str]:
        """The arguments of every call so far."""
        file = self.folder / f"{command}.calls"
        return file.read_text().splitlines() if file.exists() else []

    def queues(self, *jobs: Job) -> None:
        """Make squeue list these jobs."""
        self.says("squeue", "".join(line(job.id, job.name, job.state, job.restarts, job.reason) for job in jobs))

    def submits(self, largest: int = 1001) -> None:
        """Make sbatch accept every job. `largest`: the maximum size of an array."""
        self.does("sbatch", COUNTING)
        self.says("scontrol", f"MaxArraySize            = {largest}\n")

    def misses(self, command: str) -> None:
        """Remove the command, and every program but the fake ones from PATH."""
        (self.folder / command).unlink()
        os.environ["PATH"] = str(self.folder)


def line(id: str, name: str, state: str, restarts: int | str, reason: str | None) -> str:
    """The line that squeue prints for a job."""
    return f"{id:<40}{name:<100}{state:<24}{restarts:<10}{reason!s:<60}\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> FakeSlurm:
    """Fake Slurm commands. A command that the test has not set up fails."""
    fake = FakeSlurm(tmp_path / "slurm-commands")
    monkeypatch.setenv("PATH", f"{fake.folder}{os.pathsep}{os.environ['PATH']}")
    for variable in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(variable)
    return fake
