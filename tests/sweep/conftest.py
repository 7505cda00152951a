"""The states of a sweep with made-up jobs in the Slurm queue."""

import json
from dataclasses import asdict
from functools import cache

import pytest

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import Sweep, slurm_queue
from sae_sweeps.sweep.slurm_queue import Job
from sae_sweeps.sweep.sweep_state import read_states
from tests.conftest import composed


@cache
def compose_once() -> dict:
    return asdict(composed())


@pytest.fixture
def read_sweep(tmp_path, monkeypatch):
    """A function that reads the states of a sweep of points a, b and c, given the jobs of squeue and of sacct."""
    sweep = Sweep(tmp_path / "sweep")
    waiting = {"state": "waiting", "reason": None, "config": compose_once()}
    sweep.update(lambda known: known.update(points={name: dict(waiting) for name in "abc"}))

    def read(*submissions: dict, jobs=(), ended=(), error=None, followed=()):
        def find_jobs(names):
            if error is not None:
                raise SlurmError(error, "wait")
            wanted = set(names)
            return {job.id: job for job in jobs if job.name in wanted}

        def find_end_states(ids):
            return {id: state for id, state in dict(ended).items() if id in ids}

        monkeypatch.setattr(slurm_queue, "find_jobs", find_jobs)
        monkeypatch.setattr(slurm_queue, "find_end_states", find_end_states)
        sweep.update(lambda known: known.update(jobs=list(submissions), followed=dict(followed)))
        return read_states(sweep)

    read.sweep = sweep
    return read


def submission(name="s.1", id="7", packs=(("a",), ("b", "c")), task="points") -> dict:
    return {"id": id, "name": name, "task": task, "packs": [list(pack) for pack in packs]}


def job(id: str, state: str, restarts: int = 0, reason: str | None = None, name: str = "s.1") -> Job:
    return Job(id, name, state, restarts, reason)


def write_note(sweep, point, state, job=None, restarts=0, reason=None, step=0):
    """Write the files that a process of this job and restart leaves in the point's folder."""
    folder = sweep.folder / point
    folder.mkdir(parents=True, exist_ok=True)
    owner = {"host": "node1", "pid": 1, "job": job, "restarts": restarts}
    (folder / "state.json").write_text(json.dumps({"state": state, "reason": reason, "owner": owner}))
    if step:
        (folder / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
