"""Task `export` with format=neuronpedia: what task=latents found, in Neuronpedia's layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from sae_sweeps.formats.neuronpedia.reading import check_source, read_rows
from sae_sweeps.tasks import neuronpedia
from tests.commands import rewrite_results
from tests.report.reference import find_studies
from tests.tasks.conftest import contents, point, undo
from tests.tasks.exported import TITLES, require_no_local_paths

WORDS = ["task=export", "name=first", "format=neuronpedia", "neuronpedia.creator='Jane Doe'"]
TITLE = "topk-48-k4-seed0"


def sources(sweep: Path) -> list[Path]:
    return sorted(file.parent for file in (sweep / "export" / "neuronpedia").glob("*/*/source.jsonl"))


def record(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.jsonl").read_text())


def same(found: list[float], expected: list[float]) -> bool:
    return np.array_equal(np.float32(found), np.float32(expected))


def check_latents(folder: Path, sweep: Path, title: str) -> None:
    """Compare every line with the table of latents, worked out again from the quotes."""
    (study,) = find_studies(sweep, "latents", point(sweep, title).name)
    table = pq.read_table(study / "latents.parquet").to_pylist()
    activations: dict[str, list[dict[str, Any]]] = {}
    for one in read_rows(folder, "activations"):
        activations.setdefault(one["index"], []).append(one)
    for row, feature in zip(table, read_rows(folder, "features"), strict=True):
        assert feature["index"] == str(row["latent"])
        assert same([feature["frac_nonzero"], feature["maxActApprox"]], [row["frequency"], row["max_activation"]])
        for kind, name in (("promoted", "pos"), ("suppressed", "neg")):
            assert feature[f"{name}_str"] == [one["token"] for one in row[kind]]
            assert same(feature[f"{name}_values"], [one["logit"] for one in row[kind]])
        assert feature["freq_hist_data_bar_heights"] == row["histogram"]["counts"]
        assert sum(feature["logits_hist_data_bar_heights"]) == 300  # tokens of the vocabulary
        assert min(feature["logits_hist_data_bar_values"]) < feature["neg_values"][0] + row["logits"]["width"]
        found = activations.get(feature["index"], [])
        assert len(found) == len(row["examples"])
        for one, example in zip(found, row["examples"], strict=True):
            text, ends = (
                example["before"] + example["token"] + example["after"],
                np.cumsum(list(map(len, one["tokens"]))),
            )
            assert "".join(one["tokens"]) == text
            at = one["maxValueTokenIndex"]
            assert one["tokens"][at] == example["token"]
            assert ends[at] == len(example["before"] + example["token"])
            active = {int(end): value for end, value in zip(ends, one["values"], strict=True) if value}
            assert list(active) == [span["stop"] for span in example["active"]]
            assert same(list(active.values()), [span["activation"] for span in example["active"]])
            assert same([one["maxValue"], one["binMax"]], [example["activation"], row["max_activation"]])


def test_all_saes_are_written_with_all_their_latents(first, command, tiny_model, texts):
    ran = command(*WORDS, "neuronpedia.model=tiny", "neuronpedia.url=https://example.org")
    assert (ran.code, ran.err) == (0, "")
    assert [folder.name for folder in sources(first)] == [f"1-first-res__{title}" for title in TITLES]
    for folder, title in zip(sources(first), TITLES, strict=True):
        assert f"written: {folder.relative_to(Path.cwd())}" in ran.out
        size = int(title.split("-")[1])
        counts = check_source(folder)
        assert (counts["features"], counts["explanations"], counts["vectors"]) == (size, 0, 0)
        assert counts["activations"] > size
        check_latents(folder, first, title)
        assert folder.parent.name == record(folder, "model")["id"] == "tiny"
        assert (record(folder, "model")["layers"], record(folder, "model")["dimension"]) == (2, 16)
        assert record(folder, "source")["num_tokens_in_prompt"] == 16
        assert record(folder, "source")["dataset"] is None
        release = record(folder, "release")
        shown = (release["name"], release["description"], release["creatorName"], release["urls"])
        assert shown == ("first", "SAEs of the sweep first", "Jane Doe", ["https://example.org"])
        assert record(folder, "sourceset")["name"] == "first-res"
        assert folder.name.replace("_", r"\_") in (folder / "README.md").read_text()
    require_no_local_paths(first / "export", str(tiny_model), str(texts))


def test_every_piece_of_an_example_is_a_token(first, command, tiny_model):
    from transformers import AutoTokenizer

    assert command(*WORDS).code == 0
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    known = {tokenizer.decode([token]) for token in range(len(tokenizer))}
    pieces = {token for folder in sources(first) for one in read_rows(folder, "activations") for token in one["tokens"]}
    assert len(pieces) > 8
    assert pieces <= known


def test_the_same_export_has_the_same_bytes_and_replaces_the_earlier_one(first, command):
    assert command(*WORDS).code == 0
    before = contents(first / "export")
    (extra := sources(first)[0] / "features" / "batch-1.jsonl.gz").touch()
    assert command(*WORDS).code == 0
    assert not extra.exists()
    assert contents(first / "export") == before


def test_chosen_latents_get_their_decoder_directions_as_vectors(first, command):
    name = point(first, TITLE)
    ran = command("task=export", f"sae={name}", *WORDS[1:], "neuronpedia.vectors=[3,47]")
    assert (ran.code, ran.err) == (0, "")
    (folder,) = sources(first)
    W_dec_FD = load_file(name / "sae" / "sae_weights.safetensors")["W_dec"]
    assert W_dec_FD.shape == (48, 16)
    features = list(read_rows(folder, "features"))
    assert [one["index"] for one in features if one["hasVector"]] == ["3", "47"]
    for one, vector in zip([features[3], features[47]], read_rows(folder, "vectors"), strict=True):
        assert same(one["vector"], W_dec_FD[int(one["index"])].tolist())
        assert one["hookName"] == "blocks.1.hook_resid_pre"
        assert vector["vector"] == one["vector"]
        assert one["vectorDefaultSteerStrength"] == (one["maxActApprox"] or 10)
    assert "normalises activations (layer_norm)" in (folder / "README.md").read_text()


def test_all_latents_of_an_sae_can_be_vectors(first, command):
    ran = command("task=export", f"sae={point(first, TITLE)}", *WORDS[1:], "neuronpedia.vectors=all")
    assert (ran.code, ran.err) == (0, "")
    assert check_source(sources(first)[0])["vectors"] == 48


def test_an_export_is_refused_before_anything_is_loaded_if_latents_were_not_described(first, command, monkeypatch):
    (study,) = find_studies(first, "latents", point(first, TITLE).name)
    monkeypatch.setattr(neuronpedia, "read_labels", None)  # nothing is read after the check
    rewrite_results(study, lambda results: results["study"]["sae"]["files"].update({"cfg.json": "0" * 64}))
    for missing, change in (
        ([TITLE], lambda: None),  # its SAE has changed
        ([TITLE], lambda: shutil.rmtree(study)),
        (TITLES, lambda: undo(first, "latents")),
    ):
        change()
        ran = command(*WORDS)
        assert ran.code == 1
        named, fix = ran.err.removeprefix("export: format=neuronpedia needs the results of task=latents of ").split(
            ". "
        )
        assert sorted(named.split(", ")) == sorted(missing)
        assert fix == "Run first: python launch.py task=latents name=first\n"
        assert not (first / "export").exists()


def test_damaged_tables_and_tables_of_earlier_versions_are_refused(first, command):
    (study,) = find_studies(first, "latents", point(first, TITLE).name)
    file = study / "latents.parquet"
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["logits"]), file)
    assert f"needs the results of task=latents of {TITLE}" in command(*WORDS).err
    rewrite_results(study)
    ran = command(*WORDS)
    assert f"{study.relative_to(Path.cwd())} is of an earlier version" in ran.err
    assert ran.err.endswith("Remove this folder, and run: python launch.py task=latents name=first\n")


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        (
            "neuronpedia.creator=null",
            "neuronpedia.creator=None: format=neuronpedia needs the name of who made the SAEs",
        ),
        ("neuronpedia.creator=' '", "neuronpedia.creator= : format=neuronpedia needs the name of who made the SAEs"),
        ("neuronpedia.release=My_SAEs", "neuronpedia.release=My_SAEs: must be of lower-case letters"),
        ("neuronpedia.source_set=a--b", "neuronpedia.source_set=a--b: must be of lower-case letters"),
        ("neuronpedia.model=google/gemma", "neuronpedia.model=google/gemma: must be an id"),
        ("neuronpedia.url=example.org", "neuronpedia.url=example.org: must be an address"),
        ("neuronpedia.creator_id=Jane", "neuronpedia.creator_id=Jane: must be an id"),
        ("neuronpedia.vectors=[-1]", "neuronpedia.vectors=['-1']: must be none, all, or a list of latents"),
        ("neuronpedia.vectors=some", "neuronpedia.vectors=some: must be none, all, or a list of latents"),
        ("neuronpedia.vectors=[3,40]", "batchtopk-32-k4-seed0 has no latent 40. Fix: name latents below 32"),
        ("neuronpedia.suffix=false", "neuronpedia.suffix=False: 4 SAEs would have the id model0/1-first-res. Fix: set"),
    ],
)
def test_settings_that_cannot_work_are_refused(first, command, word, problem):
    ran = command(*WORDS, word)
    assert ran.code == 1
    assert f"{problem}" in ran.err
    assert "Fix: " in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not (first / "export").exists()


def test_names_can_be_chosen_for_one_sae_of_a_layer(first, command):
    words = ["neuronpedia.suffix=false", "neuronpedia.release=mine", "neuronpedia.source_set=topk-res"]
    words += [
        "neuronpedia.title='My SAEs'",
        "neuronpedia.model=gpt2-small",
        "export.folder=out",
        "publish.repo=me/saes",
    ]
    ran = command("task=export", f"sae={point(first, TITLE)}", *WORDS[1:], *words)
    assert (ran.code, ran.err) == (0, "")
    folder = Path("out/gpt2-small/1-topk-res")
    assert check_source(folder)["features"] == 48
    assert (record(folder, "release")["name"], record(folder, "release")["description"]) == ("mine", "My SAEs")
    assert (record(folder, "source")["hfRepoId"], record(folder, "source")["hfFolderId"]) == ("me/saes", TITLE)


def test_an_interrupted_export_leaves_the_earlier_one(first, command, monkeypatch):
    assert command(*WORDS).code == 0
    before = contents(first / "export")
    monkeypatch.setattr(neuronpedia, "check_source", lambda folder: {"features": 1})
    ran = command(*WORDS, "neuronpedia.title=Other")
    assert ran.code == 1
    assert ran.err.count("was read back with other lines") == 4
    assert contents(first / "export") == before
    assert not list(first.rglob("*.tmp"))


def test_a_folder_of_something_else_is_not_replaced(first, command):
    folder = first / "export" / "neuronpedia" / "model0" / f"1-first-res__{TITLE}"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    ran = command(*WORDS)
    assert ran.code == 1
    assert "holds files that sae-sweeps did not write and must not remove" in ran.err
    assert (folder / "thesis.txt").read_text() == "mine"
    assert len(sources(first)) == 3


def test_links_are_refused(first, command):
    folder = first / "export" / "neuronpedia" / "model0"
    folder.parent.mkdir(parents=True)
    (outside := Path("outside")).mkdir()
    folder.symlink_to(outside.absolute())
    ran = command(*WORDS)
    assert ran.code == 1
    assert not list(outside.iterdir())
