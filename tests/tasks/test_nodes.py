"""Studies of a tiny sweep on Slurm's nodes: submitted by the command, run by the node's process, told by status."""

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
from tests.conftest import composed
from tests.tasks.conftest import GIVEN, done, point, undo


@pytest.fixture
def submission(first, command, slurm, monkeypatch):
    """The folder of a submission of two studies, of which this process is to do the second, as task 101_1."""
    slurm.submits()
    slurm.queues()
    undo(first, "latents")
    words = [*GIVEN, "latents.before=2,3", f"sae=outputs/first/{point(first, 'topk-48').name}"]
    ran = command("-m", "task=latents", *words, "hydra/launcher=slurm", "hydra.launcher.gres=null")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "submitted latents: job 101",
        "see how it goes: python launch.py task=status name=first",
    ]
    (job,) = Sweep(first).read()["jobs"]
    for name, value in {"ARRAY_JOB_ID": "101", "ARRAY_TASK_ID": "1", "JOB_ID": "102", "RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    yield first / "slurm" / job["name"]
    signals.reset()


def test_a_node_does_its_study_with_its_settings_and_notes_it_under_its_own_label(first, submission, command, slurm):
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
    assert followed["latents"]["job"] is None  # as the command before has left it
    slurm.queues(Job("101_0", submission.name, "PENDING", 0, "Resources"))
    told = command("task=status", "name=first").out.splitlines()
    assert f"then latents 1 of 2 in {submission.name}: queued (job 101_0): Resources" in told
    assert f"then latents 2 of 2 in {submission.name}: done (job 101_1)" in told


def test_a_study_that_fails_on_a_node_is_noted_with_why(first, submission):
    (point(first, "topk-48") / "sae" / "sae_weights.safetensors").write_bytes(b"")
    assert node.main(submission) == 1
    noted = Sweep(first).read()["followed"][f"latents 2 of 2 in {submission.name}"]
    assert noted["state"] == "failed"
    assert "cannot be read" in noted["reason"]


def test_a_study_that_is_told_to_stop_has_itself_requeued(first, submission, monkeypatch):
    def check():
        raise signals.Stopped("SIGUSR1")

    asked, before = [], list(Sweep(first).read()["followed"])
    monkeypatch.setattr(signals, "raise_if_stopped", check)
    monkeypatch.setattr(slurm_queue, "requeue", lambda id: asked.append(id))
    assert node.main(submission) == node.STOPPED
    assert asked == ["101_1"]
    assert list(Sweep(first).read()["followed"]) == before


def test_a_study_that_is_killed_again_and_again_is_given_up(first, submission, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow_ups, "follow_up", die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            node.main(submission)
    assert node.main(submission) == 1
    noted = Sweep(first).read()["followed"][f"latents 2 of 2 in {submission.name}"]
    assert (noted["state"], noted["reason"].split(" and saved")[0]) == ("failed", "the job began again and again")


def test_a_task_that_has_nothing_to_submit_for_is_refused_before_slurm_hears_of_it(first, command, slurm):
    ran = command("task=latents", *GIVEN, "sae=./nowhere", "hydra/launcher=slurm")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert slurm.calls("sbatch") == []
    assert not (first / "slurm").exists()


def test_a_study_has_the_same_folder_wherever_the_code_lies(first, monkeypatch):
    """On a node the code is a copy, in another place than that in which the points were trained."""
    (study, *_), _ = latents.plan_studies(Sweep(first), composed(*GIVEN))
    for module in (schema, saved_saes, study_module):
        monkeypatch.setattr(module, "PROJECT", first / "slurm" / "code", raising=False)
    (same, *_), _ = latents.plan_studies(Sweep(first), composed(*GIVEN))
    assert same.folder == study.folder
    assert study.folder in done(first, "latents")
