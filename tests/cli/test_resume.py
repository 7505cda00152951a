"""Kills, signals and damaged checkpoints: the same command resumes to the same bytes."""

import json
import signal
import time

import pytest

from tests.commands import checkpoints_in, kill, point_folders, weights
from tests.conftest import launch, start


def test_a_killed_pack_resumes_to_the_same_bytes(tmp_path, tiny):
    words = ["-m", *tiny, "sae=batchtopk,topk", "k=3,4", "training.tokens=8000"]
    assert launch(*words, "name=whole", cwd=tmp_path).returncode == 0
    killed = tmp_path / "outputs" / "killed"
    for _ in range(2):
        process = start(*words, "name=killed", cwd=tmp_path)
        seen = checkpoints_in(killed)
        while process.poll() is None and len(checkpoints_in(killed) - seen) < 3:
            time.sleep(0.005)
        kill(process, killed)
    done = launch(*words, "name=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert weights(killed) == weights(tmp_path / "outputs" / "whole")


def test_a_damaged_checkpoint_falls_back_to_the_older_one(tmp_path, tiny):
    words = [*tiny, "name=damaged", "sae=topk"]
    assert launch(*words, cwd=tmp_path).returncode == 0
    (point,) = point_folders(tmp_path / "outputs" / "damaged")
    weights = (point / "sae" / "sae_weights.safetensors").read_bytes()
    (point / "results.json").unlink()
    newest = point / "checkpoint" / "step-00000040" / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 0
    assert "loading the older checkpoint" in done.stdout
    assert "resuming at step 35 of 40" in done.stdout
    assert (point / "sae" / "sae_weights.safetensors").read_bytes() == weights


def test_two_processes_never_train_the_same_point(tmp_path, tiny):
    words = [*tiny, "name=twice", "training.tokens=30000000"]  # runs until it is killed
    first = start(*words, cwd=tmp_path)
    try:
        while first.poll() is None and not checkpoints_in(tmp_path / "outputs" / "twice"):
            time.sleep(0.01)
        second = launch(*words, cwd=tmp_path)
        assert second.returncode == 1
        assert f"error: name=twice: is running: process {first.pid} on" in second.stderr
        assert "loading" not in second.stdout  # noticed before the language model is loaded
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_training_with_a_message_and_a_saved_state(tmp_path, tiny, number):
    words = [*tiny, "sae=topk", "name=stopped", "training.tokens=300000"]
    process = start(*words, cwd=tmp_path)
    while process.poll() is None and not checkpoints_in(tmp_path / "outputs" / "stopped"):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; run the same command again to resume"
    (state,) = json.loads((tmp_path / "outputs" / "stopped" / "sweep.json").read_text())["points"].values()
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert (state["state"], state["reason"]) == ("interrupted", f"stopped by {name}")
    (point,) = (tmp_path / "outputs" / "stopped").glob("topk-*/state.json")
    step = max(int(folder.rpartition("-")[2]) for folder in checkpoints_in(tmp_path / "outputs" / "stopped"))
    assert json.loads(point.read_text())["reason"] == f"stopped by {name} at step {step}"
