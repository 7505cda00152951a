"""The estimate of a pack's memory, compared with the peaks of real steps and evaluations, here and on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_sweeps.activations import language_model
from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import Config
from sae_sweeps.config.saes import SAE_SCHEMAS, PenaltyConfig
from sae_sweeps.evaluation import equal_l0, reconstruction
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.saes import TRAINABLE, encoder, penalized, sparse, topk
from sae_sweeps.sweep import Point, memory
from sae_sweeps.sweep.memory import DENSE_LIMIT, pack_bytes, point_bytes, shared_bytes
from sae_sweeps.training.fixed_step import FixedSteps
from tests.conftest import composed
from tests.sweep.memory_peaks import D, V

AT_MOST = 1.6  # times the measured peak
COMMON = ["device=cpu", "dataset.seq_len=64", "training.chunk_batches=4", "k=32"]
TRAINING, EVALUATION = "evaluation.tokens=256", "training.batch_size=256"
SIZES = (
    ["dict_size=8192", "training.batch_size=2048", "training.precision=float32"],
    ["dict_size=24576", "training.batch_size=1024", "training.precision=bfloat16"],
)
MANY = ["sae.sparsity_coefficient=1e-5", "sae.initial_threshold=0.5"]  # most entries are active
SAES = [["sae=topk"], ["sae=batchtopk"], ["sae=matryoshka"]]
SAES += [[f"sae={name}", *more] for name in ("jumprelu", "relu", "gated") for more in ([], MANY)]
CASES = [("train", [*sae, *size, TRAINING]) for size in SIZES for sae in SAES]
for dtype in ("model.dtype=float32", "model.dtype=bfloat16"):
    first = ["training.batch_size=1024", "training.chunk_batches=64", "training.initial_bias=zero"]
    CASES.append(("train", ["sae=topk", dtype, "dict_size=512", *first, TRAINING]))
    CASES += [
        ("evaluate", ["sae=topk", dtype, f"evaluation.tokens={tokens}", "dict_size=8192", EVALUATION])
        for tokens in (8192, 65536)
    ]
LARGE = ["dict_size=24576", "training.batch_size=1024", "training.precision=float32", TRAINING]
CASES += [("train", [*sae, *LARGE, "training.aux_residual_gradient=true"]) for sae in SAES[:3]]
CASES.append(("train", ["sae=jumprelu", "sae.sparsity_coefficient=1e-3", "sae.absolute_threshold=0.3", *LARGE]))
MANY_TOKENS = ["evaluation.tokens=16384", "dict_size=8192", EVALUATION]
CASES += [("evaluate", ["sae=batchtopk", f"k={k}", *MANY_TOKENS]) for k in (32, 128)]
# TopK, BatchTopK, gated with many active entries; an evaluation. Both last are the slowest, so they are smaller here.
QUICK = CASES[:2]
QUICK.append(("train", ["sae=gated", *MANY, "dict_size=4096", "training.batch_size=1024", TRAINING]))
QUICK.append(("evaluate", ["sae=batchtopk", "evaluation.tokens=8192", "dict_size=4096", EVALUATION]))
GPU_CHECK = PROJECT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3-check.md"


def facts(vocabulary: int = V, d_model: int = D) -> ModelInfo:
    return ModelInfo(n_layers=6, d_model=d_model, vocabulary=vocabulary, context=None)


def estimate(config: Config, vocabulary: int) -> float:
    return pack_bytes([Point(config, Path("point"))], facts(vocabulary), "cpu")


def measure_ratios(cases: list[tuple[str, list[str]]]) -> dict[str, float]:
    """The estimate over the measured peak of each case, in a process that gives free memory back at once."""
    given_back = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    command = [
        sys.executable,
        "-m",
        "tests.sweep.memory_peaks",
        json.dumps([[kind, COMMON + more] for kind, more in cases]),
    ]
    environment = {**os.environ, **given_back}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    estimates = [estimate(composed(*COMMON, *more), V if kind == "evaluate" else 300) for kind, more in cases]
    peaks = map(int, done.stdout.split())
    names = [f"{kind} {' '.join(more)}" for kind, more in cases]
    return {name: round(whole / peak, 2) for name, whole, peak in zip(names, estimates, peaks, strict=True)}


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process cannot be reset")
@pytest.mark.parametrize("cases", [QUICK, pytest.param(CASES, marks=pytest.mark.long)], ids=["few", "all"])
def test_the_estimate_lies_between_the_measured_peak_and_1_6_times_the_peak(cases):
    ratios = measure_ratios(cases)
    print(json.dumps(ratios, indent=1))
    assert {case: ratio for case, ratio in ratios.items() if not 1 <= ratio <= AT_MOST} == {}


def read_gpu_peaks() -> list[dict[str, str]]:
    """The rows of the table of training steps."""
    lines = [
        line.strip("| \n").split(" | ") for line in GPU_CHECK.read_text().split("## ")[2].splitlines() if "|" in line
    ]
    assert lines[0][-1] == "peak MiB"
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


@pytest.mark.parametrize("row", read_gpu_peaks(), ids=lambda row: " ".join(list(row.values())[:7]))
def test_the_estimate_lies_between_the_peak_of_a_gpu_and_1_6_times_the_peak(row, monkeypatch):
    monkeypatch.setattr(memory, "DEAD", float(row["dead"]))
    monkeypatch.setattr(memory, "BASE", {"cuda": 0.0})  # torch counts what it allocates, without the context
    sizes = [f"dict_size={row['F']}", f"k={row['k']}", f"training.batch_size={row['B']}", "training.chunk_batches=3"]
    no_model, few = facts(1, int(row["d"])), ["evaluation.tokens=1", "model.batch_sequences=1", "dataset.seq_len=2"]
    config = composed(f"sae={row['SAE']}", *sizes, *few, f"training.precision={row['precision']}")
    estimate = point_bytes(config, no_model.d_model) + shared_bytes(config, no_model, "cuda")
    assert 1 <= estimate / 2**20 / float(row["peak MiB"]) <= AT_MOST


def test_constants_are_those_of_the_code():
    assert memory.BLOCK == {"cpu": encoder.BLOCK, "cuda": encoder.BLOCK_CUDA}
    assert memory.WHOLE_BLOCK == FixedSteps.BLOCK
    assert (memory.DENSE_FROM, memory.DENSE_LIMIT) == (sparse.DENSE_FROM, sparse.DENSE_LIMIT)
    assert memory.LOGITS == {"cpu": language_model.LOGITS_IN_MEMORY, "cuda": language_model.LOGITS_IN_MEMORY_CUDA}
    assert (memory.START, memory.SEARCHED, memory.EVALUATED) == (penalized.START, topk.SEARCHED, reconstruction.BATCH)
    assert memory.MARGIN == equal_l0.MARGIN
    assert (
        set(memory.STARTING_L0)
        == set(memory.DENSE_MATRICES)
        == {name for name, schema in SAE_SCHEMAS.items() if issubclass(schema, PenaltyConfig)}
    )
    assert all(memory.STARTING_L0[name] == TRAINABLE[name].starting_l0_ratio for name in ("relu", "gated"))


def test_a_gpu_counts_its_context_and_larger_blocks():
    config = composed("sae=batchtopk", "dict_size=24576")
    assert shared_bytes(config, facts(), "cuda") > shared_bytes(config, facts(), "cpu") + 0.5e9
    assert shared_bytes(config, facts(), "xpu") == shared_bytes(config, facts(), "cuda")


@pytest.mark.parametrize("sae", ["jumprelu", "relu", "gated"])
def test_a_coefficient_may_leave_every_entry_active_up_to_the_dense_limit(sae):
    words = [f"sae={sae}", "training.batch_size=4096", "training.chunk_batches=1", "evaluation.tokens=256"]
    given = ["sae.sparsity_coefficient=0.01", "sae.initial_threshold=1.5"]
    configs = (composed(*words, *more, "dict_size=65536") for more in ([], given))
    bounded, dense = (memory._step_bytes(config, D, "cuda") for config in configs)
    assert dense > bounded + 5 * 4 * 4096 * 65536
    beyond = shared_bytes(composed(*words, *given, f"dict_size={DENSE_LIMIT // 4096 * 2}"), facts(), "cuda")
    assert beyond < 5 * 4 * 2 * DENSE_LIMIT


def test_large_batches_of_evaluation_and_model_count():
    words = ["sae=topk", "dict_size=1024", "training.batch_size=64"]
    small = shared_bytes(composed(*words, "evaluation.tokens=256"), facts(), "cpu")
    assert shared_bytes(composed(*words, "evaluation.tokens=65536"), facts(), "cpu") > small + 5 * 65000 * D * 4
    assert shared_bytes(composed(*words, "evaluation.tokens=256"), facts(10**6), "cpu") > 12 * 128 * 10**6
