"""The command as a user runs it: help, errors, whole sweeps, and resuming after a kill."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from sae_sweeps.runtime.provenance import PROJECT
from tests.conftest import launch


def test_help_lists_groups_and_settings(tmp_path):
    done = launch("--help", cwd=tmp_path)
    assert done.returncode == 0
    for part in (
        "sae: batchtopk, gated, jumprelu, matryoshka, relu, topk",
        "experiment: gemma2_2b, gpt2_small",
        "dict_size: 3072",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("words", "setting", "parts"),
    [
        (["k=0"], "k=0", ["greater than 0"]),
        (["k=9999"], "k=9999", ["dict_size=3072"]),
        (["dict_size=-1"], "dict_size=-1", ["greater than 0"]),
        (["dict_size=many"], "dict_size=many", ["Integer"]),
        (["sae=unknown"], "sae=unknown", ["batchtopk, gated, jumprelu, matryoshka, relu, topk"]),
        (["sae.aux_latent=3"], "sae.aux_latent=3", ["sae.aux_latents"]),
        (
            ["sae=topk", "sae.target_l0=5"],
            "sae.target_l0=5",
            ["only with sae=jumprelu or sae=relu or sae=gated", "Fix: sae=jumprelu"],
        ),
        (["nonsense=3"], "nonsense=3", ["--help"]),
        (["k=[1"], "k=[1", ["cannot be parsed"]),
        (["model.hook=blocks.3.resid_pre"], "model.hook=blocks.3.resid_pre", ["blocks.3.hook_resid_pre"]),
        (["model.hook=blocks.77.hook_resid_pre"], "model.hook=blocks.77", ["layers 0 to 5"]),
        (["model.name=/no/such/folder"], "model.name=/no/such/folder", ["no such folder"]),
        (["model.name=nobody/nothing"], "model.name=nobody/nothing", ["hub cannot be reached"]),
        (["model=gpt2-small"], "model.name=gpt2", ["hub cannot be reached"]),
        (["dataset=openwebtext"], "dataset.name=Skylion007/openwebtext", ["hub cannot be reached"]),
        (["dataset=text", "dataset.files=nowhere/*.txt"], "dataset.files=nowhere/*.txt", ["matches no file"]),
        (["dataset=text", "dataset.files=short.txt"], "dataset.seq_len=128", ["shorter than one sequence"]),
        (["dataset=text", "dataset.files=short.txt", "-m", "k=8,16"], "dataset.seq_len=128", ["shorter"]),
        (["output_root=short.txt"], "output_root=short.txt", ["cannot be written"]),
        (["model.name="], "model.name=", ["must be a folder or a name"]),
        (["dataset=text", "dataset.files=3"], "dataset.files=3", ["path or a glob"]),
        (["dataset=hub", "dataset.name="], "dataset.name=", ["must name a data set on the Hugging Face hub"]),
        (["sae=topk,batchtopk"], "sae=topk,batchtopk", ["add -m"]),
        (["-m", "name=a,b", "k=16,32"], "name=outputs/a, outputs/b", ["one sweep"]),
        (["device=abacus"], "device=abacus", ["is not a known device"]),
        (["training.precision=half"], "training.precision=half", ["float32, tf32, bfloat16"]),
        (["training.precision=tf32", "device=cpu"], "training.precision=tf32", ["needs a CUDA device"]),
        (["activations.cache=short.txt"], "activations.cache=short.txt", ["cannot be written"]),
        (["activations.cache_gib=0"], "activations.cache_gib=0", ["greater than 0"]),
        (["-m", "sae=topk,unknown"], "sae=unknown", ["batchtopk, gated, jumprelu, matryoshka, relu, topk"]),
    ],
)
def test_a_bad_setting_is_reported_in_one_line_without_a_traceback(tmp_path, words, setting, parts):
    (tmp_path / "short.txt").write_text("Too short a text. " * 20)
    done = launch(*words, cwd=tmp_path)
    message = [
        line
        for line in done.stderr.splitlines()
        if not line.endswith("points have invalid settings, so nothing was run")
    ]
    assert done.returncode == 1
    assert len(message) == 1, done.stderr
    assert message[0].startswith(f"error: {setting}")
    assert "Fix: " in message[0]
    assert all(part in message[0] for part in parts)
    assert done.stdout == ""
    assert not [path for path in tmp_path.glob("outputs/*/*") if path.is_dir()]  # no folder of a point is left


def test_a_sweep_over_architectures_accepts_a_setting_that_only_these_architectures_have(tmp_path):
    done = launch("-m", "task=plan", "sae=jumprelu,relu", "sae.target_l0=${k}", "k=16,32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "points  4\n" in done.stdout


def test_the_problems_of_all_points_are_reported_at_once(tmp_path):
    done = launch("-m", "k=0,32,9999", "dict_size=3072,-1", cwd=tmp_path)
    assert done.returncode == 1
    assert "5 of 6 points have invalid settings, so nothing was run" in done.stderr
    for problem in ("k=0:", "dict_size=-1:", "k=9999:"):
        assert done.stderr.count(f"error: {problem}") == 1


def test_an_error_is_reported_without_importing_a_slow_library(tmp_path):
    """Check that an error is reported quickly: no library is imported that takes seconds."""
    script = (
        "import sys, runpy; sys.argv = ['launch.py', 'k=0']\n"
        f"try: runpy.run_path({str(PROJECT / 'launch.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'datasets', 'wandb'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code - 1)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def point_folders(sweep):
    return sorted(entry for entry in sweep.iterdir() if (entry / "results.json").exists())


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


def weights(sweep):
    return {point.name: (point / "sae" / "sae_weights.safetensors").read_bytes() for point in point_folders(sweep)}


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
    assert "split into 1 + 1 + 1, the language model runs 3 times" in done.stdout


@pytest.mark.parametrize(
    ("word", "part"),
    [("max_points=0", "whole number from 1"), ("max_points=few", "whole number"), ("max_memory=-1", "GiB above 0")],
)
@pytest.mark.parametrize("several", [[], ["-m"]])
def test_an_impossible_limit_of_a_pack_is_refused(tmp_path, tiny, word, part, several):
    done = launch(*several, *tiny, f"hydra.launcher.{word}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: hydra.launcher.{word}: must be")
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1


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


def begin(*words, cwd, stderr=subprocess.DEVNULL):
    """Start a command that the test will stop."""
    command = [sys.executable, str(PROJECT / "launch.py"), *words]

    def restore_ctrl_c() -> None:  # a shell makes its background jobs, which may be these tests, ignore SIGINT
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    streams = {"stdout": subprocess.DEVNULL, "stderr": stderr}
    return subprocess.Popen(command, cwd=cwd, preexec_fn=restore_ctrl_c, text=True, **streams)


def kill(process, sweep):
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(sweep.glob("*/results.json")), "the command ended before it was killed"


def test_a_killed_pack_resumes_to_the_same_bytes(tmp_path, tiny):
    words = ["-m", *tiny, "sae=batchtopk,topk", "k=3,4", "training.tokens=60000"]
    assert launch(*words, "name=whole", cwd=tmp_path).returncode == 0
    killed = tmp_path / "outputs" / "killed"
    for _ in range(2):
        process = begin(*words, "name=killed", cwd=tmp_path)
        seen = checkpoints_in(killed)
        while process.poll() is None and len(checkpoints_in(killed) - seen) < 3:
            time.sleep(0.005)
        kill(process, killed)
    done = launch(*words, "name=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert weights(killed) == weights(tmp_path / "outputs" / "whole")


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu"])
def test_a_point_killed_at_random_moments_resumes_to_the_same_bytes(tmp_path, tiny, architecture):
    words = [*tiny, f"sae={architecture}", "training.tokens=90000", "training.checkpoint_every=25"]
    if architecture == "jumprelu":
        words.append("sae.sparsity_coefficient=0.01")
    assert launch(*words, "name=whole", cwd=tmp_path).returncode == 0

    chance = random.Random(architecture)
    interrupted = tmp_path / "outputs" / "killed"
    for at_once in (True, False, False):
        process = begin(*words, "name=killed", cwd=tmp_path)
        seen = checkpoints_in(interrupted)
        while process.poll() is None and not at_once and checkpoints_in(interrupted) == seen:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 3.0) if at_once else chance.uniform(0, 0.2))
        kill(process, interrupted)
    done = launch(*words, "name=killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout

    (whole,), (killed,) = point_folders(tmp_path / "outputs" / "whole"), point_folders(interrupted)
    for file in ("sae/sae_weights.safetensors", "sae/cfg.json"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes()
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    results = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (whole, killed)]
    assert results[0] == results[1]
    assert load_file(killed / "sae/sae_weights.safetensors")["W_dec"].shape == (48, 16)


def checkpoints_in(sweep):
    return {path.name for path in sweep.glob("*/checkpoint/step-*")}


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
    first = begin(*words, cwd=tmp_path, stderr=None)
    try:
        while first.poll() is None and not checkpoints_in(tmp_path / "outputs" / "twice"):
            time.sleep(0.01)
        second = launch(*words, cwd=tmp_path)
        assert second.returncode == 1
        assert "another process is training this point" in second.stdout
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_training_with_a_message_and_a_saved_state(tmp_path, tiny, number):
    words = [*tiny, "name=stopped", "training.tokens=300000"]
    process = begin(*words, cwd=tmp_path, stderr=subprocess.PIPE)
    while process.poll() is None and not checkpoints_in(tmp_path / "outputs" / "stopped"):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; run the same command again to resume"
    (state,) = json.loads((tmp_path / "outputs" / "stopped" / "sweep.json").read_text())["points"].values()
    assert state["state"] == "interrupted"
