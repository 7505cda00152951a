"""The command as a user runs it: help, whole sweeps, packs and cached activations."""

import csv
import json

from filelock import FileLock

from tests.commands import point_folders, weights
from tests.conftest import launch


def test_a_sweep_from_end_to_end(tmp_path, tiny):
    words = ["-m", *tiny, "sae=batchtopk,topk", "k=3,4", "name=first", "tracking=offline"]
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "first"
    points = point_folders(sweep)
    assert len(points) == 4
    for point in points:
        results = json.loads((point / "results.json").read_text())
        assert results["training"]["tokens"] == 2400
        assert results["metrics"]["l0"] > 0
        assert results["provenance"]["packages"]["torch"]
        lines = [json.loads(line) for line in (point / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines]
        assert steps == sorted(set(steps))
        assert steps[-1] == 40
        assert sorted(entry.name for entry in (point / "checkpoint").iterdir()) == ["step-00000035", "step-00000040"]
        assert (point / "launch.log").exists()
        assert (point / ".hydra" / "config.yaml").exists()
        assert list((point / "wandb").glob("offline-run-*"))
    states = json.loads((sweep / "sweep.json").read_text())["points"]
    assert {state["state"] for state in states.values()} == {"done"}
    with open(sweep / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["point"] for row in rows} == {point.name for point in points}
    topk = [row for row in rows if row["architecture"] == "topk"]
    assert [float(row["l0"]) for row in topk] == [float(row["k"]) for row in topk]
    assert "\x1b[" not in done.stdout  # plain lines in a pipe
    assert "4 of 4 points finished" in done.stdout

    before = {point: (point / "sae" / "sae_weights.safetensors").stat().st_mtime_ns for point in points}
    again = launch(*words, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("the point is already done and is skipped") == 4
    assert before == {point: (point / "sae" / "sae_weights.safetensors").stat().st_mtime_ns for point in points}


def test_a_point_that_fails_does_not_affect_the_others(tmp_path, tiny):
    words = ["-m", *tiny, "sae=jumprelu", "sae.sparsity_coefficient=0.01", "training.lr=1e38,1e-3", "name=mixed"]
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 1
    states = json.loads((tmp_path / "outputs" / "mixed" / "sweep.json").read_text())["points"].values()
    assert [state["state"] for state in states] == ["failed", "done"]
    assert "the loss is" in next(iter(states))["reason"]
    assert "FAILED jumprelu-48-k4-seed0-" in done.stdout
    (finished,) = point_folders(tmp_path / "outputs" / "mixed")
    assert "resuming" not in (text := (finished / "launch.log").read_text())
    assert f"{finished.name}: nmse" in text  # its own log only
    assert "40 steps of 60" in text
    assert text.count("steps of 60 activations") == 1
    assert len(point_folders(tmp_path / "outputs" / "mixed")) == 1


def test_points_give_the_same_weights_in_a_pack_as_alone(tmp_path, tiny):
    words = ["-m", *tiny, "sae=batchtopk,topk", "training.tokens=2400,1500"]
    packed = launch(*words, "name=packed", cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    assert "4 points in" in packed.stdout
    assert "packs of" not in packed.stdout
    single = launch(*words, "name=single", "hydra.launcher.max_points=1", cwd=tmp_path)
    assert single.returncode == 0
    assert "4 points in 4 packs of 1 + 1 + 1 + 1" in single.stdout
    assert len(weights(tmp_path / "outputs" / "packed")) == 4
    assert weights(tmp_path / "outputs" / "packed") == weights(tmp_path / "outputs" / "single")


def test_a_point_that_another_process_trains_does_not_block_the_rest_of_its_pack(tmp_path, tiny):
    words = ["-m", *tiny, "k=3,4,5", "name=shared"]
    assert launch(*words, cwd=tmp_path).returncode == 0
    sweep = tmp_path / "outputs" / "shared"
    locked, *others = point_folders(sweep)
    for point in (locked, *others):
        (point / "results.json").unlink()
    with FileLock(locked / ".lock"):
        done = launch(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert f"FAILED {locked.name}: another process is training this point" in done.stdout
    assert "another process" in (locked / "launch.log").read_text()
    assert point_folders(sweep) == others
    assert all("another process" not in (point / "launch.log").read_text() for point in others)


def test_a_pack_too_large_for_the_memory_is_split_with_a_message(tmp_path, tiny):
    done = launch("-m", *tiny, "k=3,4,5", "name=small", "hydra.launcher.max_memory=1e-6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a pack of 3 points needs" in done.stdout
    assert "It is split into packs of 1 + 1 + 1 points, so the language model runs 3 times" in done.stdout


def test_a_second_sweep_reuses_the_cached_activations_of_the_first(tmp_path, tiny):
    words = ["-m", *tiny, f"activations.cache={tmp_path / 'kept'}"]
    first = launch(*words, "k=3,4", "name=first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "computed 8 chunks of activations and read 0 chunks from activations.cache" in first.stdout
    second = launch(*words, "k=4,5", "name=second", cwd=tmp_path)
    assert "computed 0 chunks of activations and read 8 chunks from activations.cache" in second.stdout
    plain = launch("-m", *tiny, "k=4,5", "name=plain", cwd=tmp_path)
    assert plain.returncode == 0
    assert weights(tmp_path / "outputs" / "second") == weights(tmp_path / "outputs" / "plain")
