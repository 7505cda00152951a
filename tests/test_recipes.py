"""The benchmark of recipes: its rows are what the commands beside them give, and its tables are worked out by hand."""

import importlib
import json
import math
import sys
from types import ModuleType

import pytest
import torch

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import train
from tests.conftest import composed


@pytest.fixture
def recipes(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    module = importlib.import_module("recipes")
    monkeypatch.setattr(module, "CHUNK", 300)
    return module


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "jumprelu"])
def test_a_row_has_the_metrics_that_its_command_gives(recipes, tiny, tmp_path, architecture):
    own = f"{recipes.BEFORE} training.batch_size=30 training.lr=null".split()
    words = recipes.keep_last([*tiny, f"sae={architecture}", *own, "training.chunk_batches=10"])
    run = recipes.Run("small", architecture, 48, 2400, 0, tuple(words))
    config = recipes.compose_run(words)
    source = ActivationSource(config, torch.device("cpu"))
    chunks = recipes.read_chunks(source, config, 2400)
    row = recipes.train_run(run, chunks, source.held_out(150), source, ce=True)
    assert len(chunks) == len(row["curve"]) == 8
    assert row["curve"][-1][0] == 2400

    point = Point(composed(*words, f"output_root={tmp_path}"), tmp_path / "point")
    train.run([point], Limits(), SweepProgress(1), lambda point, error: pytest.fail(str(error)) if error else None)
    metrics = json.loads((point.folder / "results.json").read_text())["metrics"]
    shown = {"nmse": "nmse", "l0": "l0", "dead": "dead_fraction", "ce": "ce_degradation"}
    assert {name: row[name] for name in shown} == {name: metrics[metric] for name, metric in shown.items()}


def test_the_tokens_to_a_level_lie_between_measurements(recipes):
    curve = [[100, 0.5, 0.0], [200, 0.3, 0.0], [300, 0.35, 0.0], [400, 0.1, 0.0]]
    assert [recipes.tokens_to(curve, level) for level in (0.6, 0.5, 0.4, 0.3, 0.15)] == pytest.approx(
        [100, 100, 150, 200, 380]
    )
    assert recipes.tokens_to(curve, 0.05) == math.inf


def test_every_recipe_is_a_command_that_can_run(recipes, monkeypatch):
    monkeypatch.setattr(recipes, "CHUNK", 32_768)
    monkeypatch.setattr(
        sys, "argv", ["recipes.py", "--add", "mine: training.lr=1", "--seeds", "0", "1", "--dict-sizes", "96"]
    )
    args = recipes.parse_arguments()
    args.architectures = ["batchtopk"]
    chosen = recipes.choose_recipes(args)
    assert chosen["mine"] == "training.lr=1"
    runs = list(recipes.list_runs(args, chosen))
    assert len(runs) == 2 * len(chosen)
    for run in runs:
        training = composed(*run.words).training
        assert training.batch_size * training.chunk_batches == 32_768
        assert f"dict_size={run.dict_size}" in run.command.split()


def test_a_table_has_the_mean_over_seeds(recipes):
    row = {"recipe": "small", "l0": 32.0, "seconds": 2.0, "curve": [[100, 0.2, 0.0]]}
    rows = [row | {"nmse": 0.06, "dead": 0.1}, row | {"nmse": 0.08, "dead": 0.3}]
    assert recipes.average(rows, [0.2, 0.1]) == ["small", "0.0700 ± 0.0141", "20.0 %", "32.0", "100", "", "2.0"]


def test_recipes_can_keep_their_own_chunks(recipes, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--own-chunks", "--recipes", "paper", "efficient"])
    args = recipes.parse_arguments()
    args.architectures = ["topk"]
    runs = list(recipes.list_runs(args, recipes.choose_recipes(args)))
    sizes = {run.recipe: recipes.chunk_size(composed(*run.words)) for run in runs}
    assert sizes == {"paper": 262_144, "efficient": 32_768}
    assert not any("chunk_batches" in run.command for run in runs)


def test_the_page_of_a_busy_machine_has_no_seconds(recipes):
    row = {
        "name": "small, topk 96",
        "recipe": "small",
        "architecture": "topk",
        "dict_size": 96,
        "tokens": 100,
        "seed": 0,
    }
    row |= {"command": "python launch.py", "nmse": 0.06, "dead": 0.1, "l0": 32.0, "curve": [[100, 0.2, 0.0]]}
    settings = {"model": "embedded", "hook": "blocks.3.hook_resid_pre", "k": 32, "held_out": 150, "sample": 150}
    data = {**recipes.describe_run(1), "levels": [0.2], "recipes": {"small": "training=quick"}}
    busy = recipes.format_page({**data, "settings": settings | {"chunk": 0}, "rows": [row]})
    free = recipes.format_page({**data, "settings": settings | {"chunk": 300}, "rows": [row | {"seconds": 2.5}]})
    assert "seconds" not in busy.lower()
    assert "in the chunks of their recipes" in busy
    assert "| small | 0.0600 | 10.0 % | 32.0 | 100 |\n" in busy
    assert "| small | 0.0600 | 10.0 % | 32.0 | 100 | 2.5 |\n" in free
    assert "chunks (300 activations)" in free
