"""W&B runs of studies: offline, read back from their files, and found by task=sync."""

import json
import shutil
from pathlib import Path

import pytest

from sae_sweeps.config.differences import shorten_paths
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks import meta_sae, meta_sizes, stitch, sync
from sae_sweeps.training.curve import read_lines
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done, point, undo
from tests.tracking.test_run import records

PARTS = {
    "stitch": {"small": "topk-32", "large": "topk-48"},
    "meta_sae": {"sae": "topk-48", "smaller_32": "topk-32"},
    "meta_sizes": {"size_32": "topk-32", "size_48": "topk-48"},
}
LOGGED = {
    "stitch": {"interpolation/nmse", "random/l0", "thresholds", "families", "latents", "cosine", "mse_change"},
    "meta_sae": {"explained_variance", "smaller", "meta_latents_per_latent", "explained"},
    "meta_sizes": {"explained_variance", "sizes", "shared", "explained"},
}


@pytest.fixture(scope="module")
def tracked(swept, tmp_path_factory) -> Path:
    """Return the sweep with W&B runs of a stitching and of meta-SAE studies, and made-up runs of its points."""
    folder = shutil.copytree(swept, tmp_path_factory.mktemp("tracked") / "outputs" / "first")
    small, large = (point(folder, title) for title in ("topk-32", "topk-48"))
    for title, point_folder in (("topk-32", small), ("topk-48", large)):
        run = {"id": f"run-{title}", "project": "sae-sweeps", "entity": None}
        (point_folder / "wandb_run.json").write_text(json.dumps(run))
    for task in ("stitch", "meta_sae", "meta_sizes", "latents"):
        undo(folder, task)
    given = [*GIVEN, "tracking=offline"]
    given.remove("tracking=off")
    assert stitch.run(Sweep(folder), composed(*given, "task=stitch", f"small={small}", f"large={large}")) == []
    assert meta_sae.run(Sweep(folder), composed(*given, "task=meta_sae", f"saved={large}")) == []
    assert meta_sizes.run(Sweep(folder), composed(*given, "task=meta_sizes")) == []  # of each architecture
    return folder


@pytest.mark.parametrize("task", PARTS)
def test_a_studys_run_is_in_the_sweeps_group_and_names_its_points(tracked, task):
    (folder,) = done(tracked, task, "topk")
    results, run = json.loads((folder / "results.json").read_text()), records(folder)["run"]
    assert (run.run_group, run.job_type, run.display_name) == ("first", task, f"{task} {folder.name}")
    assert run.run_id == json.loads((folder / "wandb_run.json").read_text())["id"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    for part, title in PARTS[task].items():
        named = (config["study"][part]["point"], config["study"][part]["wandb_run"])
        assert named == (point(tracked, title).name, f"run-{title}")
    assert config["study"] == shorten_paths(results["study"])
    model = config["config"]["model"]
    assert model == {name: shorten_paths(results["config"]["model"][name]) for name in model}
    assert {"name", "hook"} <= set(model)
    assert config["commit"] == results["provenance"]["commit"]


@pytest.mark.parametrize("task", PARTS)
def test_a_studys_run_has_its_metrics_curves_tables_and_figures(tracked, task):
    (folder,) = done(tracked, task, "topk")
    metrics, found = json.loads((folder / "results.json").read_text())["metrics"], records(folder)
    assert found["exit"] == 0
    for name, value in metrics.items():
        assert found["summary"][name] == pytest.approx(value)
    logged = {name for line in found["history"] for name in line}
    assert LOGGED[task] | {picture.stem for picture in folder.glob("*.png")} <= logged


def test_the_logged_interpolation_is_the_one_in_the_results(tracked):
    (folder,) = done(tracked, "stitch")
    curve = json.loads((folder / "results.json").read_text())["curves"]["interpolation"]
    lines = [line for line in records(folder)["history"] if "interpolation/nmse" in line]
    assert [line["position"] for line in lines] == list(range(len(lines)))
    assert [line["interpolation/nmse"] for line in lines] == curve["nmse"]
    assert [line["interpolation/l0"] for line in lines] == curve["l0"]


def test_the_logged_curve_of_a_meta_sae_is_its_training_curve(tracked):
    (folder,) = done(tracked, "meta_sae")
    curve = read_lines(folder / "metrics.jsonl")
    lines = [line for line in records(folder)["history"] if "explained_variance" in line and "step" in line]
    assert [{name: line[name] for name in curve[0]} for line in lines[: len(curve)]] == curve


def test_sync_uploads_the_runs_of_studies(tracked, monkeypatch, capsys):
    uploaded = []

    def upload(runs, server, addresses):
        for folder in runs:
            uploaded.append(folder.parent.parent.parent.name)
            (folder / "run.wandb.synced").touch()
        return {}

    monkeypatch.setattr(sync, "_upload", upload)
    monkeypatch.setattr(sync, "unreachable_reason", lambda server: None)
    assert sync.run(Sweep(tracked), composed()) == []
    assert sorted(uploaded) == ["meta_sae", "meta_sizes", "meta_sizes", "stitch"]
    assert sync.run(Sweep(tracked), composed()) == []
    assert capsys.readouterr().out.splitlines() == ["4 runs to upload", "uploaded 4 runs", "0 runs to upload"]
