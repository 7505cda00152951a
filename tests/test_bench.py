"""The benchmark's command: its device, and where its results are written."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from sae_sweeps.runtime.places import PROJECT

RUN = [sys.executable, str(PROJECT / "benchmarks" / "run.py")]


def bench(*words: str, hide_gpus: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if hide_gpus else {})}
    return subprocess.run([*RUN, *words], env=environment, capture_output=True, text=True, timeout=600)


def test_without_a_gpu_cuda_is_one_error(tmp_path):
    ended = bench("--device", "cuda", "--quick", "--results", str(tmp_path), hide_gpus=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(
        "--device cuda: torch finds no GPU; run `nvidia-smi`, and `make setup TORCH_BACKEND=auto`"
    )
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_results_of_a_cpu_are_named_after_it(tmp_path):
    small = ("--quick", "--sizes", "tiny", "--steps", "1", "--threads", "1", "--only-ours")
    ended = bench(*small, "--results", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.glob("*-cores-quick-tiny.json")
    data = json.loads(file.read_text())
    assert data["machine"]["gpu"] is None
    ours = [record for record in data["steps"] if record["library"] == "sae-sweeps"]
    assert {record["spec"]["device"] for record in ours} == {"cpu"}
    assert all(len(record["step_seconds"]) == 1 for record in ours)
    assert file.with_suffix(".md").read_text().startswith(f"# Benchmark on {data['machine']['name']}")


def test_the_results_of_a_gpu_are_named_after_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    machine = importlib.import_module("machine")
    monkeypatch.setattr(machine, "find_gpu", lambda: "NVIDIA H100")
    assert machine.describe("cuda")["name"] == machine.describe("cuda")["gpu"] == "NVIDIA H100"
    assert machine.describe("cpu")["gpu"] is None
    assert machine.describe("cpu")["name"] == machine.describe("cpu")["cpu"]
