"""Slurm's commands as small scripts in a folder at the front of PATH, and sweeps as they are seen with made-up jobs."""

import json
import os
import stat
from pathlib import Path

import pytest

from sae_sweeps.errors import SlurmError
from sae_sweeps.slurm import queue
from sae_sweeps.slurm.queue import Job
from sae_sweeps.slurm.watch import states_of
from sae_sweeps.sweep import Sweep

COMMANDS = ("squeue", "sacct", "scontrol", "sbatch", "scancel", "srun")
COUNTING = 'echo "Submitted batch job $((100 + $(wc -l < "$0.calls")))"'  # 101, 102, ...


class FakeSlurm:
    """Each command does what it was told by `does`, and keeps its arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        queue.ended.cache_clear()
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


@pytest.fixture
def see(tmp_path, monkeypatch):
    """Look at a sweep of the points a, b and c, with these jobs in the queue and these in the accounts."""
    sweep = Sweep(tmp_path / "sweep")
    sweep.update(lambda known: known.update(points={name: {"state": "waiting", "reason": None} for name in "abc"}))

    def looked_at(*submissions: dict, jobs=(), ended=(), error=None, followed=()):
        def listed(names):
            if error is not None:
                raise SlurmError(error)
            wanted = set(names)
            return {job.id: job for job in jobs if job.name in wanted}

        monkeypatch.setattr(queue, "jobs", listed)
        monkeypatch.setattr(queue, "ended", lambda ids: {id: how for id, how in dict(ended).items() if id in ids})
        sweep.update(lambda known: known.update(jobs=list(submissions), followed=dict(followed)))
        return states_of(sweep)

    looked_at.sweep = sweep
    return looked_at


def submission(name="s.1", id="7", packs=(("a",), ("b", "c")), task="points") -> dict:
    return {"id": id, "name": name, "task": task, "packs": [list(pack) for pack in packs]}


def job(id: str, state: str, restarts: int = 0, reason: str | None = None, name: str = "s.1") -> Job:
    return Job(id, name, state, restarts, reason)


def notes(sweep, point, state, job=None, restarts=0, reason=None, step=0):
    """What a process of that run of that job has left in the point's folder."""
    folder = sweep.folder / point
    folder.mkdir(parents=True, exist_ok=True)
    owner = {"host": "node1", "pid": 1, "job": job, "restarts": restarts}
    (folder / "state.json").write_text(json.dumps({"state": state, "reason": reason, "owner": owner}))
    if step:
        (folder / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
