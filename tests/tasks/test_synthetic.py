"""Sweeps on synthetic activations: no language model, results with recovery, and studies that work or are refused."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae_sweeps.activations.source import load_source
from sae_sweeps.activations.synthetic import SyntheticSource
from sae_sweeps.config import from_json
from sae_sweeps.evaluation.recovery import assign_latents, measure_recovery
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.runtime.places import PROJECT
from tests.conftest import launch, make_once
from tests.tasks.conftest import done, point

SMALL = [
    "dataset=synthetic",
    "synthetic.dim=12",
    "synthetic.features=20",
    "synthetic.active=2",
    "k=2",
    "training.tokens=4000",
    "training.batch_size=50",
    "training.chunk_batches=8",
    "training.dead_after_tokens=500",
    "training.checkpoint_every=30",
    "evaluation.tokens=1500",
]
GIVEN = ["name=planted", "tracking=off", "device=cpu", "stitch.tokens=400", "latents.tokens=400"]
META = ["meta.steps=60", "meta.batch_size=16", "meta.checkpoint_every=25"]


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Path:
    """Return the folder of a sweep of two architectures and two sizes, with its report."""

    def train(folder: Path) -> None:
        words = ["sae=batchtopk,topk", "dict_size=16,20", "then=[match,meta_sizes,report]"]
        ran = launch("-m", *SMALL, *words, *GIVEN, *META, cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    return make_once(tmp_path_factory, "planted", train) / "outputs" / "planted"


@pytest.fixture
def here(planted, tmp_path) -> Path:
    """Return a copy of the sweep in the test's working folder."""
    return shutil.copytree(planted, tmp_path / "outputs" / "planted")


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_results_have_recovery_and_no_cross_entropy(planted):
    for title in ("batchtopk-20", "topk-16"):
        results = results_of(point(planted, title))
        assert not any(name.startswith(("ce_", "kl_")) for name in [*results["metrics"], *results["missing"]])
        assert 0 < results["metrics"]["mcc"] <= 1
        assert 0 < results["metrics"]["feature_f1"] <= 1
        assert list(results["intervals"]["metrics"]) == ["nmse", "nmse_at_k"]
        assert results["point"]["model"] == "synthetic"


def test_the_metrics_can_be_made_again(planted):
    folder = point(planted, "batchtopk-20")
    results, sae = results_of(folder), load_sae(folder)
    source = load_source(from_json(results["config"]), torch.device("cpu"))
    assert isinstance(source, SyntheticSource)
    data = source.held_out(1500)
    again = measure_recovery(sae, data.acts_AD, data.truth)
    assert again == pytest.approx({name: results["metrics"][name] for name in again})
    (tensors,) = planted.glob("planted/*.safetensors")
    W_GD = load_file(tensors)["directions"]
    assert assign_latents(sae.W_dec, W_GD).cosine_P.mean().item() == pytest.approx(results["metrics"]["mcc"], abs=1e-6)
    settings = json.loads(tensors.with_suffix(".json").read_text())
    assert settings == results["config"]["synthetic"]


def test_training_and_held_out_activations_differ(planted):
    config = from_json(results_of(point(planted, "batchtopk-20"))["config"])
    source = load_source(config, torch.device("cpu"))
    chunk_AD = source.stream(config).chunk(0)
    assert torch.equal(chunk_AD, source.stream(config).chunk(0))
    assert not torch.equal(chunk_AD, source.stream(config).chunk(1))
    assert torch.cdist(chunk_AD, source.held_out(400).acts_AD).min() > 1e-3
    longer_AD = source.held_out(600).acts_AD
    assert torch.equal(longer_AD[:400], source.held_out(400).acts_AD)
    read_AD = torch.cat([x_BD for _, x_BD in source.held_out_text(600)])
    assert torch.equal(read_AD, longer_AD)


def test_an_interrupted_point_resumes_to_the_same_bytes(planted, command, tmp_path):
    words = [*SMALL, "sae=batchtopk", "dict_size=20", "name=again", "tracking=off", "device=cpu"]
    assert command(*words).code == 0
    folder = point(tmp_path / "outputs" / "again", "batchtopk-20")
    weights = (folder / "sae" / "sae_weights.safetensors").read_bytes()
    assert weights == (point(planted, "batchtopk-20") / "sae" / "sae_weights.safetensors").read_bytes()
    (folder / "results.json").unlink()
    newest = max((folder / "checkpoint").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    ran = command(*words)
    assert ran.code == 0
    assert (folder / "sae" / "sae_weights.safetensors").read_bytes() == weights


def test_the_report_shows_recovery_in_place_of_cross_entropies(planted):
    page = (planted / "report.html").read_text()
    assert '"name":"mcc"' in page.replace(" ", "")
    assert '"name":"ce_degradation"' not in page.replace(" ", "")
    assert "20 planted features in 12 dimensions" in page
    assert "4 points, synthetic activations" in page
    with (planted / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert all(float(row["mcc"]) > 0 for row in rows)
    assert not any(name.startswith("ce_") for name in rows[0])


def test_matching_and_sizes_work_without_a_model(planted):
    assert len(done(planted, "match")) == 2
    assert len(done(planted, "meta_sizes")) == 2
    row = results_of(done(planted, "match", "batchtopk")[0])["pairs"][0]
    assert row["differing"] == "dict_size"
    assert row["paired_mean"] > row["paired_mean_random"]


def test_evaluation_repeats_the_metrics(here, command):
    ran = command("task=evaluate", *GIVEN, f"sae={point(here, 'topk-20')}")
    assert ran.code == 0, ran.err
    (study,) = done(here, "evaluate")
    assert results_of(study)["metrics"] == pytest.approx(results_of(point(here, "topk-20"))["metrics"])
    assert "MCC" in ran.out
    assert "CE +nats" not in ran.out
    assert command("task=export", *GIVEN, f"sae={point(here, 'topk-20')}").code == 0
    (card,) = here.glob("export/sae_lens/*/README.md")
    assert "trained on synthetic activations of a planted dictionary, of width 12" in card.read_text()
    assert "| `synthetic.features` | `20` |" in card.read_text()


@pytest.mark.parametrize("task", ["stitch", "meta_sae", "latents", "join"])
def test_studies_that_need_a_model_are_refused_in_one_line(here, command, task):
    ran = command(f"task={task}", *GIVEN, *META)
    assert ran.code == 1
    assert f"task={task}: needs a language model" in ran.err
    assert "Traceback" not in ran.err


def test_the_saes_are_not_measured_on_text(here, command):
    ran = command("task=evaluate", "dataset=embedded", *GIVEN)
    assert ran.code == 1
    assert "was trained on synthetic activations, and cannot be measured on text" in ran.err


def test_a_metric_of_recovery_is_an_objective(command, tmp_path):
    words = ["sae=batchtopk", "training.lr=1e-6,0.01", "dict_size=20", "name=halved", "tracking=off", "device=cpu"]
    ran = command("-m", *SMALL, *words, "hydra/sweeper=halving", "objective=mcc", "halving.first=2000")
    assert ran.code == 0, ran.err
    points = json.loads((tmp_path / "outputs" / "halved" / "sweep.json").read_text())["points"].values()
    states = {point["config"]["training"]["lr"]: point["state"] for point in points}
    assert states == {1e-6: "pruned", 0.01: "done"}


def test_the_plan_counts_what_is_drawn(command):
    ran = command("-m", "task=plan", *SMALL, "dict_size=16,20", "name=none", "tracking=off")
    assert ran.code == 0
    assert "4,000 drawn from planted features, 8,000 through the SAEs" in ran.out


@pytest.mark.integration
def test_no_library_of_language_models_is_imported(tmp_path):
    program = (
        "import sys, runpy\nsys.argv = ['launch.py', *sys.argv[1:]]\n"
        "try:\n    runpy.run_path({!r}, run_name='__main__')\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('imported', sorted({{'transformer_lens', 'transformers', 'datasets'}} & set(sys.modules)))"
    ).format(str(PROJECT / "launch.py"))
    words = [*SMALL, "dict_size=16", "training.tokens=500", "name=alone", "tracking=off", "device=cpu"]
    ran = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "imported []" in ran.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    "words",
    [
        ["synthetic.features=1", "synthetic.active=1", "dict_size=1", "k=1"],
        ["synthetic.dim=1", "dict_size=4"],
        ["synthetic.noise=0", "synthetic.active=0.01", "dict_size=4"],
        ["synthetic.features=200", "dict_size=4"],
        ["synthetic.active=20", "synthetic.noise=0", "dict_size=40", "k=40"],
        ["training.initial_bias=mean", "training.initial_weights=data", "synthetic.active=0.001", "synthetic.noise=0"],
        ["synthetic.depth=3", "synthetic.correlation=0.9", "synthetic.bias=5", "sae=jumprelu", "dict_size=16"],
    ],
)
def test_any_settings_give_a_result_or_one_error(command, tmp_path, words):
    given = [word for word in SMALL if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    sized = [] if any(word.startswith("dict_size") for word in words) else ["dict_size=16"]
    ran = command(*given, *words, *sized, "name=any", "tracking=off", "device=cpu", "training.tokens=1000")
    folders = list(tmp_path.glob("outputs/any/*/results.json"))
    assert (ran.code == 0 and len(folders) == 1) or (ran.code == 1 and "Traceback" not in ran.err), ran.err
