"""Task `join` on a sweep: the joined SAE on disk, the table beside the single SAEs, and what is refused."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from sae_sweeps.activations.source import load_source
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.formats.reading import load_sae
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done, point


@pytest.fixture
def ran(first, command):
    return command("task=join", *GIVEN)


def test_a_chain_is_joined_saved_and_evaluated(ran, first, command, model_settings):
    assert (ran.code, ran.err) == (0, "")
    assert "TopK SAEs are not joined" in ran.out
    (study,) = done(first, "join")
    results = json.loads((study / "results.json").read_text())
    rows = results["saes"]
    assert [(row["kind"], row["latents"]) for row in rows[:2]] == [("single", 32), ("single", 48)]
    source = load_source(composed(*model_settings, "device=cpu"), torch.device("cpu"))
    data = source.held_out(150)
    joined = load_sae(study)
    assert joined.dict_size == rows[-1]["latents"] == results["metrics"]["latents"] > 32
    again = evaluate(joined, source.model, data)
    small, large = (load_sae(point(first, f"batchtopk-{size}")) for size in (32, 48))
    for sae, end in ((joined, ""), (small, "_smallest"), (large, "_largest")):
        found = again if sae is joined else evaluate(sae, source.model, data)
        for name in ("nmse", "l0", "ce_degradation"):
            assert results["metrics"][f"{name}{end}"] == pytest.approx(found[name], rel=1e-4, abs=1e-6)
    table = pq.read_table(study / "latents.parquet").to_pydict()
    assert table["point"][:32] == [point(first, "batchtopk-32").name] * 32
    assert set(table["point"][32:]) == {point(first, "batchtopk-48").name}
    assert table["cosine"][:32] == [None] * 32
    assert all(cosine < 0.7 for cosine in table["cosine"][32:])
    for latent in (0, 32, joined.dict_size - 1):
        own = small if latent < 32 else large
        assert torch.equal(joined.W_dec[latent], own.W_dec[table["latent_there"][latent]])


def test_a_joined_sae_is_an_sae_for_the_other_tasks(ran, first, command, model_settings):
    (study,) = done(first, "join")
    evaluated = command("task=evaluate", f"sae={study}", "evaluation.tokens=150", *GIVEN, *model_settings)
    assert (evaluated.code, evaluated.err) == (0, "")
    (folder,) = done(first, "evaluate")
    metrics = json.loads((study / "results.json").read_text())["metrics"]
    found = json.loads((folder / "results.json").read_text())["metrics"]
    assert found["nmse"] == pytest.approx(metrics["nmse"], rel=1e-5)


def test_the_report_lists_what_was_joined(ran, first, command):
    assert command("task=report", *GIVEN).code == 0
    page = (first / "report.html").read_text()
    assert 'id="joined"' in page
    assert "joined up to BatchTopK" in page


def test_a_sweep_without_a_chain_is_refused(first, command):
    for folder in first.glob("batchtopk-48*"):
        (folder / "results.json").unlink()
    ran = command("task=join", *GIVEN)
    assert ran.code == 1
    assert "batchtopk-48" in ran.err + ran.out
