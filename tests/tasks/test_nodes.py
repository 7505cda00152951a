"""Studies of a tiny sweep on Slurm: submitted by the command, run on the node, shown by task=status."""

import json

import pyarrow.parquet as pq
import pytest

from sae_sweeps.config import schema
from sae_sweeps.launchers.slurm import node
from sae_sweeps.runtime import signals
from sae_sweeps.sweep import Sweep, saved_saes, slurm_queue
from sae_sweeps.sweep.slurm_queue import Job
from sae_sweeps.tasks import follow_ups, latents
from sae_sweeps.tasks import study as study_module
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done, point, undo


@pytest.fixture
def submission(first, command, slurm, monkeypatch):
    """Yield the folder of a submission of two studies; this process is array task 101_1, the second study."""
    slurm.submits()
    slurm.queues()
    undo(first, "latents")
    words = [*GIVEN, "latents.before=2,3", f"sae=outputs/first/{point(first, 'topk-48').name}"]
    ran = command("-m", "task=latents", *words, "hydra/launcher=slurm", "hydra.launcher.gres=null")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "submitted latents: job 101",
        "to see the progress: python launch.py task=status name=first",
    ]
    (job,) = Sweep(first).read()["jobs"]
    for name, value in {"ARRAY_JOB_ID": "101", "ARRAY_TASK_ID": "1", "JOB_ID": "102", "RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    yield first / "slurm" / job["name"]
    signals.reset()


def test_a_node_runs_its_study_and_records_it_under_its_own_label(first, submission, command, slurm):
    assert len(json.loads((submission / "submission.json").read_text())["configs"]) == 2
    assert not done(first, "latents")
    assert node.main(submission) == 0
    (folder,) = done(first, "latents")
    assert folder.name.startswith("topk-48-k4-seed0-")
    assert json.loads((folder / "results.json").read_text())["study"]["settings"]["before"] == 3
    examples = [one for row in pq.read_table(folder / "latents.parquet")["examples"].to_pylist() for one in row]
    assert 0 < max(len(one["before"].split()) for one in examples) <= 3
    outcome = {"state": "done", "reason": None, "job": "101_1"}
    followed = Sweep(first).read()["followed"]
    assert followed[f"latents 2 of 2 in {submission.name}"] == outcome
    assert followed["latents"]["job"] is None  # the command's own studies ran without a job
    slurm.queues(Job("101_0", submission.name, "PENDING", 0, "Resources"))
    lines = command("task=status", "name=first").out.splitlines()
    assert f"then latents 1 of 2 in {submission.name}: queued (job 101_0): Resources" in lines
    assert f"then latents 2 of 2 in {submission.name}: done (job 101_1)" in lines


def test_a_study_that_fails_on_a_node_is_recorded_with_the_reason(first, submission):
    (point(first, "topk-48") / "sae" / "sae_weights.safetensors").write_bytes(b"")
    assert node.main(submission) == 1
    noted = Sweep(first).read()["followed"][f"latents 2 of 2 in {submission.name}"]
    assert noted["state"] == "failed"
    assert "cannot be read" in noted["reason"]


def test_a_study_that_receives_a_stop_signal_requeues_itself(first, submission, monkeypatch):
    def check():
        raise signals.Stopped("SIGUSR1")

    asked, before = [], list(Sweep(first).read()["followed"])
    monkeypatch.setattr(signals, "raise_if_stopped", check)
    monkeypatch.setattr(slurm_queue, "requeue", lambda id: asked.append(id))
    assert node.main(submission) == node.EXIT_PREEMPTED
    assert asked == ["101_1"]
    assert list(Sweep(first).read()["followed"]) == before


def test_a_study_killed_repeatedly_is_marked_failed(first, submission, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow_ups, "run_follow_up", die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            node.main(submission)
    assert node.main(submission) == 1
    noted = Sweep(first).read()["followed"][f"latents 2 of 2 in {submission.name}"]
    assert (noted["state"], noted["reason"].split(". The job's log")[0]) == (
        "failed",
        "gave up, because the job was killed or preempted too many times without a new checkpoint",
    )


def test_a_task_with_a_missing_sae_is_refused_before_submission(first, command, slurm):
    ran = command("task=latents", *GIVEN, "sae=./nowhere", "hydra/launcher=slurm")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert slurm.calls("sbatch") == []
    assert not (first / "slurm").exists()


def test_a_study_has_the_same_folder_wherever_the_code_is(first, monkeypatch):
    """A node runs a copy of the code in another folder than the points were trained from."""
    (study, *_), _ = latents.plan_studies(Sweep(first), composed(*GIVEN))
    for module in (schema, saved_saes, study_module):
        monkeypatch.setattr(module, "PROJECT", first / "slurm" / "code", raising=False)
    (same, *_), _ = latents.plan_studies(Sweep(first), composed(*GIVEN))
    assert same.folder == study.folder
    assert study.folder in done(first, "latents")
