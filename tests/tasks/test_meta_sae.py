"""Tasks `meta_sae` and `latents` on a tiny sweep: files, named SAEs, and resuming a stopped study."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from sae_sweeps.formats import saelens
from sae_sweeps.runtime import signals
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks import meta_sae
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import contents, done, point, raise_at, undo

ACTIVE = "list<element: struct<start: int32, stop: int32, activation: float>>"
EXAMPLE = f"activation: float, before: string, token: string, after: string, place: int64, active: {ACTIVE}"
EXAMPLE += ", cuts: list<element: int32>"
TOKENS = "list<element: struct<token: string, logit: float>>"
LATENTS = {
    "latent": "int32",
    "frequency": "float",
    "mean_activation": "float",
    "max_activation": "float",
    "examples": f"list<element: struct<{EXAMPLE}>>",
    "promoted": TOKENS,
    "suppressed": TOKENS,
    "histogram": "struct<width: float, counts: list<element: int32>>",
    "logits": "struct<low: float, width: float, counts: list<element: int32>>",
}
SAE_COLUMNS = LATENTS | {
    "explained": "float",
    "meta_latents": "list<element: struct<meta_latent: int32, weight: float>>",
}
META_SAE_COLUMNS = LATENTS | {
    "used_by": "int32",
    "latents": "list<element: struct<latent: int32, weight: float>>",
    "matches": "list<element: struct<point: string, latent: int32, cosine: float>>",
}


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def table(file, columns: dict) -> list[dict]:
    """Return the rows of a table, and check its columns."""
    found = pq.read_table(file)
    assert {column.name: str(column.type) for column in found.schema} == columns
    return found.to_pylist()


@pytest.fixture
def decomposed(swept):
    """Return the folder of the study of the larger BatchTopK SAE."""
    (folder,) = done(swept, "meta_sae", "batchtopk-48-k4-seed0-meta-k4")
    return folder


def test_the_saved_meta_sae_agrees_with_the_results(swept, decomposed):
    found, meta = results(decomposed), saelens.read(decomposed / "sae")
    metrics = found["metrics"]
    described = saelens.describe(decomposed / "sae")
    assert (meta.architecture, meta.d_in, described.k) == ("batchtopk", 16, 4)
    assert described.directions_of == found["study"]["sae"]["point"]
    assert meta.dict_size == metrics["meta_latents"] == metrics["decomposed"] // 4
    assert meta.normalization == "none"
    assert metrics["decomposed"] + metrics["never_active"] == metrics["latents"] == 48
    assert metrics["l0"] == 4
    own = results(swept / found["study"]["sae"]["point"])["metrics"]
    for name in ("nmse", "ce_degradation"):
        assert metrics[f"{name}_before"] == pytest.approx(own[name], rel=1e-5)
    assert sum(found["meta_latents_per_latent"]) == metrics["decomposed"]
    assert list(found["smaller"]) == ["smaller_32"]


def test_the_tables_have_a_row_per_latent_and_agree_with_each_other(swept, decomposed):
    metrics = results(decomposed)["metrics"]
    rows = table(decomposed / "latents.parquet", SAE_COLUMNS)
    meta_rows = table(decomposed / "meta_latents.parquet", META_SAE_COLUMNS)
    assert [row["latent"] for row in rows] == list(range(48))
    assert [row["latent"] for row in meta_rows] == list(range(metrics["meta_latents"]))
    left_out = [row for row in rows if row["explained"] is None]
    assert len(left_out) == metrics["never_active"]
    assert all(row["frequency"] == 0 and row["meta_latents"] == [] and row["examples"] == [] for row in left_out)
    parts = {(row["latent"], part["meta_latent"]) for row in rows for part in row["meta_latents"]}
    users = {(user["latent"], row["latent"]) for row in meta_rows for user in row["latents"]}
    assert users <= parts
    assert len(parts) == 4 * metrics["decomposed"] == sum(row["used_by"] for row in meta_rows)
    assert {match["point"] for row in meta_rows for match in row["matches"]} == {point(swept, "batchtopk-32").name}


def test_examples_show_best_and_random_decompositions(decomposed):
    text = (decomposed / "examples.md").read_text()
    assert text.startswith(f"# {decomposed.name}\n")
    best, drawn = text.split("## At random")
    assert best.count("\n### Latent ") == drawn.count("\n### Latent ") > 0
    assert "⟦" in text
    assert "x meta-latent" in text


def test_task_latents_writes_a_table_for_every_sae(swept):
    for folder in done(swept, "latents"):
        found = results(folder)
        rows = table(folder / "latents.parquet", LATENTS)
        own = results(swept / found["study"]["sae"]["point"])["metrics"]
        assert len(rows) == found["metrics"]["latents"]
        assert sum(row["frequency"] for row in rows) == pytest.approx(own["l0"], rel=1e-5)
        assert all(row["examples"][0]["activation"] == row["max_activation"] for row in rows if row["frequency"] > 0)
        assert all(len(row["promoted"]) == len(row["suppressed"]) == 10 for row in rows)
        for row in rows:
            logits = [[one["logit"] for one in row[name]] for name in ("suppressed", "promoted")]
            assert logits == [sorted(logits[0]), sorted(logits[1], reverse=True)]
            assert logits[0][-1] < logits[1][-1]
            assert sum(row["logits"]["counts"]) == 300  # tokens of the vocabulary
            highest = row["logits"]["low"] + row["logits"]["width"] * len(row["logits"]["counts"])
            assert [row["logits"]["low"], highest] == pytest.approx([logits[0][0], logits[1][0]], rel=1e-4)
            active_on = round(row["frequency"] * found["metrics"]["activations"])
            assert sum(row["histogram"]["counts"]) == active_on
            assert (
                active_on == 0
                or len(row["histogram"]["counts"]) == row["max_activation"] // row["histogram"]["width"] + 1
            )


def test_active_tokens_of_an_example_have_their_activations(swept):
    """The example itself, and the tokens that are examples in the same sequence, which are in its context."""
    (folder,) = done(swept, "latents", "topk-48")
    others = 0
    for row in pq.read_table(folder / "latents.parquet").to_pylist():
        for example in row["examples"]:
            own = {"start": len(example["before"]), "stop": len(example["before"] + example["token"])}
            assert {**own, "activation": example["activation"]} in example["active"]
            assert max(one["activation"] for one in example["active"]) == example["activation"]
            ends = [0, *(end for one in example["active"] for end in (one["start"], one["stop"]))]
            assert ends == sorted(ends)
            assert ends[-1] <= len(example["before"] + example["token"] + example["after"])
            others += len(example["active"]) - 1
    assert others > 10


def test_a_multirun_runs_a_study_per_configuration(first, command):
    undo(first, "meta_sae")
    sae = point(first, "topk-48")
    ran = command("-m", "task=meta_sae", *GIVEN, "meta.k=2,3", "meta.dict_size=5", f"sae={sae}")
    assert (ran.code, ran.err) == (0, "")
    folders = done(first, "meta_sae")
    names = [folder.name.rpartition("-")[0] for folder in folders]
    assert names == ["topk-48-k4-seed0-meta5-k2", "topk-48-k4-seed0-meta5-k3"]
    saes = [saelens.describe(folder / "sae") for folder in folders]
    assert [(sae.dict_size, sae.k) for sae in saes] == [(5, 2), (5, 3)]
    assert all(results(folder)["metrics"]["l0"] <= sae.k for folder, sae in zip(folders, saes, strict=True))


@pytest.mark.parametrize("task", ["meta_sae", "latents"])
def test_an_sae_can_be_named_by_its_points_folder_or_its_own(first, command, task):
    before = contents(first)
    sae = point(first, "batchtopk-48")
    for folder in (sae, sae / "sae"):
        ran = command(f"task={task}", *GIVEN, f"sae={folder}")
        assert (ran.code, ran.out.count("this study is already done and is skipped")) == (0, 1)
    assert contents(first) == before


def test_a_copied_sae_is_studied_with_the_commands_model(first, command, tmp_path, model_settings):
    shutil.copytree(point(first, "topk-32") / "sae", tmp_path / "elsewhere" / "mine")
    given = [word for word in GIVEN if not word.startswith("name=")]
    ran = command("task=latents", *given, *model_settings, "name=copies", "sae=elsewhere/mine")
    assert (ran.code, ran.err) == (0, "")
    (folder,) = done(tmp_path / "outputs" / "copies", "latents")
    assert folder.name.rpartition("-")[0] == "mine"
    described = results(folder)["study"]["sae"]
    assert (described["architecture"], described["dict_size"], described["k"]) == ("topk", 32, 4)
    (same,) = done(first, "latents", "topk-32")
    assert pq.read_table(folder / "latents.parquet").equals(pq.read_table(same / "latents.parquet"))


@pytest.mark.parametrize(
    ("at", "error", "step"),
    [
        (40, signals.Stopped, 39),  # asked to stop: the state of that step is saved
        (40, KeyboardInterrupt, 25),  # as if killed: the last checkpoint is earlier
        (95, signals.Stopped, 34),  # in the training of the control
        (95, KeyboardInterrupt, 25),
    ],
)
def test_a_stopped_study_resumes_to_the_same_bytes(first, decomposed, monkeypatch, caplog, at, error, step):
    caplog.set_level("INFO")
    undo(first, "meta_sae")
    config = composed(*GIVEN, f"saved={point(first, 'batchtopk-48')}")

    with monkeypatch.context() as patched:
        patched.setattr(signals, "raise_if_stopped", raise_at(at, error))
        with pytest.raises(error):
            meta_sae.run(Sweep(first), config)
    (stopped,) = (first / "meta_sae").iterdir()
    assert stopped.name == decomposed.name
    assert not (stopped / "results.json").exists()
    assert meta_sae.run(Sweep(first), config) == []
    assert f"resuming at step {step} of 60" in caplog.text
    (file,) = (stopped / "sae").glob("*.safetensors")
    assert file.read_bytes() == (decomposed / "sae" / file.name).read_bytes()
    assert load_file(file)
    for curve in ("metrics.jsonl", "control/metrics.jsonl"):
        assert (stopped / curve).read_text() == (decomposed / curve).read_text()
    assert results(stopped)["metrics"] == results(decomposed)["metrics"]
