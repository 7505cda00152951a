"""The package sae-bench, in its own environment, computes the core metrics that `task=saebench` does."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sae_sweeps.activations.source import load_source
from sae_sweeps.evaluation.saebench import find_ignored
from sae_sweeps.formats.saebench_results import CATEGORIES, OF_LATENTS
from tests.conftest import composed, launch

pytestmark = pytest.mark.integration

PEER = Path(__file__).parent / "peers" / "with_sae_bench.py"
ARCHITECTURES = ("batchtopk", "topk", "jumprelu", "relu", "gated")
SEQUENCES, RECONSTRUCTION, SPARSITY = 3, 3, 5  # sequences in a batch, and batches of both kinds
SETTINGS = [
    f"saebench.batch_sequences={SEQUENCES}",
    f"saebench.reconstruction_batches={RECONSTRUCTION}",
    f"saebench.sparsity_batches={SPARSITY}",
]


@pytest.fixture(scope="module")
def saebench_python() -> str:
    python = os.environ.get("SAEBENCH_PYTHON")
    if not python:
        pytest.skip("SAEBENCH_PYTHON does not name a Python with sae-bench; `make integration` makes one")
    return str(Path(python).absolute())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny, tiny_model):
    """Train an SAE of each architecture, and export all. Returns the folder, the model and a point's settings."""
    folder = tmp_path_factory.mktemp("saebench")
    done = launch("-m", *tiny, "name=sweep", f"sae={','.join(ARCHITECTURES)}", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = launch("task=export", "format=saebench", "name=sweep", "tracking=off", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, tiny_model, composed(*tiny)


@pytest.fixture(scope="module")
def compared(saebench_python, trained) -> dict[bool, tuple[dict, dict]]:
    """Return the results of both by architecture, ours first, with special tokens kept (True) and replaced."""
    folder, model, config = trained
    source, work = load_source(config, torch.device("cpu")), folder / "work"
    shutil.copytree(folder / "outputs" / "sweep" / "export" / "saebench", work / "ours")
    (work / "results").mkdir()
    ours = {excludes: take_results(folder, excludes) for excludes in (True, False)}
    for number, content in enumerate(one for case in ours.values() for one in case.values()):
        (work / "results" / f"{number}.json").write_text(json.dumps(content))
    asked = {"sequences": SEQUENCES, "reconstruction": RECONSTRUCTION, "sparsity": SPARSITY}
    (work / "request.json").write_text(json.dumps({**asked, "ignored": sorted(find_ignored(source.model))}))
    tokens_NS = source.tokens.held_out(SEQUENCES * SPARSITY).tokens_NS
    assert (tokens_NS[:, 1:] == source.model.eos).any(), "some sequences have special tokens in the middle"
    save_file({"tokens": tokens_NS.contiguous()}, work / "tokens.safetensors")
    command = [saebench_python, str(PEER), str(work), str(model)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr
    theirs = {excludes: collect(work.glob(f"theirs/{excludes}/*")) for excludes in ours}
    return {excludes: (ours[excludes], theirs[excludes]) for excludes in ours}


def take_results(folder: Path, excludes: bool) -> dict[str, dict]:
    """Measure the SAEs of the sweep, and return the content of SAEBench's file of each by architecture."""
    words = ["task=saebench", "name=sweep", "tracking=off", "device=cpu", *SETTINGS]
    done = launch(*words, f"saebench.exclude_special_tokens={excludes}", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(file.read_text()) for file in folder.glob("outputs/sweep/saebench/*/results.json")]
    chosen = [one for one in results if one["study"]["settings"]["exclude_special_tokens"] == excludes]
    folders = [folder / "outputs" / "sweep" / "saebench" / one["study"]["name"] for one in chosen]
    return collect(file for found in folders for file in found.glob("*_eval_results.json"))


def collect(files: Iterable[Path]) -> dict[str, dict]:
    """Return the content of files of results by architecture."""
    contents = [json.loads(file.read_text()) for file in files]
    return {content["sae_lens_id"].partition("-")[0]: content for content in contents}


@pytest.mark.parametrize("excludes", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_core_metrics_are_those_of_sae_bench(compared, architecture, excludes):
    ours, theirs = (results[architecture] for results in compared[excludes])
    assert ours["eval_result_metrics"].keys() == theirs["eval_result_metrics"].keys()
    for category, metrics in theirs["eval_result_metrics"].items():
        assert ours["eval_result_metrics"][category] == pytest.approx(metrics, rel=1e-4, abs=1e-6), category
    assert {name for names in CATEGORIES.values() for name in names} <= {
        name for metrics in theirs["eval_result_metrics"].values() for name in metrics
    }
    rows = list(zip(ours["eval_result_details"], theirs["eval_result_details"], strict=True))
    assert len(rows) == 48
    for mine, other in rows:
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-5)
        assert set(mine) == {"index", *OF_LATENTS}


def test_the_comparison_can_fail(compared):
    """The numbers are of different SAEs, and none is a placeholder."""
    for results in (*compared[True], *compared[False]):
        scores = [one["eval_result_metrics"]["model_behavior_preservation"]["kl_div_score"] for one in results.values()]
        assert len(set(scores)) == len(ARCHITECTURES)
        assert all(
            value != -1
            for one in results.values()
            for metrics in one["eval_result_metrics"].values()
            for value in metrics.values()
        )
    replaced = [
        results["topk"]["eval_result_metrics"]["model_behavior_preservation"] for results, _ in compared.values()
    ]
    assert replaced[0]["kl_div_with_sae"] != pytest.approx(replaced[1]["kl_div_with_sae"], rel=1e-3)
