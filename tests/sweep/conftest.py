"""Sweeps as they are seen with made-up jobs in the queue."""

import json

import pytest

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import Sweep, slurm_queue
from sae_sweeps.sweep.slurm_queue import Job
from sae_sweeps.sweep.sweep_state import read_states


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

        monkeypatch.setattr(slurm_queue, "jobs", listed)
        monkeypatch.setattr(slurm_queue, "ended", lambda ids: {id: how for id, how in dict(ended).items() if id in ids})
        sweep.update(lambda known: known.update(jobs=list(submissions), followed=dict(followed)))
        return read_states(sweep)

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
