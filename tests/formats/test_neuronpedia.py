"""Neuronpedia's layout: what is written is read back, and the reader finds every planted mistake."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_sweeps.formats.neuronpedia import reading
from sae_sweeps.formats.neuronpedia.names import describe_site, name_model, slugify
from sae_sweeps.formats.neuronpedia.reading import check_source, read_rows
from sae_sweeps.formats.neuronpedia.records import Source, make_id, shorten, split_tokens
from sae_sweeps.formats.neuronpedia.schema import FILES, FOLDERS
from sae_sweeps.formats.neuronpedia.writing import write_source

BATCH = 4  # in place of 1024
SIZE = BATCH + 3  # two batches
SOURCE = Source(
    model="gpt2-small",
    model_title="gpt2",
    owner="openai-community",
    source_set="mine-res",
    id="8-mine-res__topk-1027",
    release="mine",
    title="My SAEs",
    description="My SAEs: residual stream",
    creator="Jane Doe",
    creator_id="cjane",
    url="https://example.org/é",
    layer=8,
    hook_type="hook_resid_pre",
    dimension=3,
    layers=12,
    prompts=7,
    prompt_tokens=128,
    dataset="owner/text",
    hub_repo=None,
    hub_folder=None,
    notes="topk",
)
LABELS = {0: ("first", None), BATCH + 1: ("<b>second</b>", "score: 0.5")}
VECTORS = {2: [0.5, -1.25, 3.0], BATCH + 2: [1.0, 0.0, 0.0]}


def example(activation: float, at: int = 1) -> dict[str, Any]:
    """An example with the tokens " a", "é", "\\n" and "!", on one of which the latent is most active."""
    tokens, starts = [" a", "é", "\n", "!"], [0, 2, 3, 4]
    active = [{"start": starts[at], "stop": starts[at] + len(tokens[at]), "activation": activation}]
    if at != 3:
        active.append({"start": 4, "stop": 5, "activation": activation / 4})
    around = ("".join(tokens[:at]), tokens[at], "".join(tokens[at + 1 :]))
    texts = dict(zip(("before", "token", "after"), around, strict=True))
    return {"activation": activation, **texts, "place": 3, "active": active, "cuts": starts[1:]}


def make_rows() -> list[dict[str, Any]]:
    rows = []
    for latent in range(SIZE):
        found = [example(float(np.float32(3.1 - number)), number) for number in range(latent % 3)]
        rows.append(
            {
                "latent": latent,
                "frequency": float(np.float32(0.1)) if found else 0.0,
                "max_activation": found[0]["activation"] if found else 0.0,
                "examples": found,
                "promoted": [{"token": " up", "logit": 2.5}, {"token": "\x00", "logit": 1.5}],
                "suppressed": [{"token": "down", "logit": -2.5}],
                "histogram": {"width": 0.5, "counts": [0, 3, 1] if found else []},
                "logits": {"low": -3.0, "width": 0.25, "counts": [2, 0, 1]},
            }
        )
    return rows


def write(folder: Path) -> dict[str, int]:
    folder.mkdir()
    rows = make_rows()
    batches = [rows[:BATCH], rows[BATCH:]]
    seen: list[int] = []
    written = write_source(
        folder,
        SOURCE,
        batches,
        LABELS,
        lambda latents: {latent: VECTORS[latent] for latent in latents if latent in VECTORS},
        seen.append,
    )
    assert seen == [BATCH, SIZE]
    return written


@pytest.fixture(autouse=True)
def small_batches(monkeypatch) -> None:
    monkeypatch.setattr(reading, "BATCH", BATCH)


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "source")
    return tmp_path / "source"


def test_what_is_written_is_read_back(folder):
    examples = sum(latent % 3 for latent in range(SIZE))
    assert check_source(folder) == {"features": SIZE, "activations": examples, "explanations": 2, "vectors": 2}
    names = {"release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl", *FOLDERS}
    assert {file.name for file in folder.iterdir()} == names
    assert sorted(file.name for file in (folder / "features").iterdir()) == ["batch-0.jsonl.gz", "batch-1.jsonl.gz"]
    rows, activations = make_rows(), list(read_rows(folder, "activations"))
    for row, feature in zip(rows, read_rows(folder, "features"), strict=True):
        assert feature["index"] == str(row["latent"])
        assert np.float32(feature["frac_nonzero"]) == np.float32(row["frequency"])
        assert (feature["pos_str"], feature["neg_values"]) == ([" up", "\x00"], [-2.5])
        assert feature["freq_hist_data_bar_values"] == ([0.25, 0.75, 1.25] if row["examples"] else [])
        assert feature["freq_hist_data_bar_heights"] == row["histogram"]["counts"]
        assert feature["logits_hist_data_bar_values"] == [-2.875, -2.625, -2.375]
        vector = VECTORS.get(row["latent"], [])
        assert (feature["vector"], feature["hasVector"]) == (vector, bool(vector))
        assert feature["hookName"] == ("blocks.8.hook_resid_pre" if vector else None)
        mine = [one for one in activations if one["index"] == feature["index"]]
        assert [np.float32(one["maxValue"]) for one in mine] == [
            np.float32(one["activation"]) for one in row["examples"]
        ]
    (first,) = [one for one in activations if one["index"] == "1"]
    assert first["tokens"] == [" a", "é", "\n", "!"]
    assert first["values"] == [3.0999999, 0.0, 0.0, 0.774999976]
    assert (first["maxValueTokenIndex"], first["binMin"], first["binMax"]) == (0, -1, 3.0999999)
    explanations = [(one["index"], one["description"], one["notes"]) for one in read_rows(folder, "explanations")]
    assert explanations == [("0", "first", None), (str(BATCH + 1), "<b>second</b>", "score: 0.5")]
    one, other = read_rows(folder, "vectors")
    assert (one["vector"], one["vectorDefaultSteerStrength"]) == (VECTORS[2], 3.0999999)
    assert (one["layerNumber"], one["hookType"]) == (8, "hook_resid_pre")
    assert other["vectorLabel"] == f"8-mine-res__topk-1027 {BATCH + 2}"


def test_an_export_has_the_same_bytes_every_time(folder, tmp_path):
    write(tmp_path / "again")
    for file in folder.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes()
    for file in folder.rglob("*.gz"):
        assert file.read_bytes()[3:8] == bytes(5)  # no name, no time


def change_line(name: str, number: int, /, **values: Any) -> Callable[[Path], None]:
    """Return a function that changes entries of one line of a file; one with the value `...` is removed."""

    def change(folder: Path) -> None:
        file = folder / name
        content = file.read_bytes()
        lines = (gzip.decompress(content) if file.suffix == ".gz" else content).decode().splitlines()
        row = {**json.loads(lines[number]), **values}
        lines[number] = json.dumps({key: value for key, value in row.items() if value is not ...})
        text = "".join(f"{line}\n" for line in lines).encode()
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)

    return change


FEATURES, ACTIVATIONS = "features/batch-0.jsonl.gz", "activations/batch-0.jsonl.gz"
EXPLANATIONS, VECTOR_FILE = "explanations/batch-0.jsonl.gz", "vectors/batch-0.jsonl.gz"
MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a field too many": (change_line(FEATURES, 3, umap_x=1.0), "line 4: umap_x is missing, or no field"),
    "a number as text": (change_line(FEATURES, 3, frac_nonzero="0"), "line 4: frac_nonzero has another type"),
    "an index as a number": (change_line(FEATURES, 3, index=3), "index has another type"),
    "a null among values": (change_line(ACTIVATIONS, 0, values=[1.0, None]), "values has another type"),
    "another latent": (change_line(FEATURES, 3, index="9"), "latent 9 is not in its place"),
    "another model": (change_line(ACTIVATIONS, 2, modelId="gpt2"), "line 3: modelId is not the source's"),
    "another layer": (change_line(EXPLANATIONS, 0, layer="9-mine-res"), "layer is not the source's"),
    "another author": (change_line(EXPLANATIONS, 0, authorId="cjim"), "authorId is not the source's"),
    "another creator": (change_line("model.jsonl", 0, creatorId="cjim"), "creatorId differs"),
    "another release": (change_line("sourceset.jsonl", 0, releaseName="yours"), "releaseName is not the release's"),
    "another set": (change_line("source.jsonl", 0, setName="yours"), "setName is not the source set's"),
    "another set of a feature": (change_line(FEATURES, 2, sourceSetName="yours"), "sourceSetName is another"),
    "an id without layer": (change_line("source.jsonl", 0, id="mine-res"), "id is not LAYER-SET"),
    "a share above 1": (change_line(FEATURES, 1, frac_nonzero=1.5), "frac_nonzero is no share"),
    "a bar too few": (change_line(FEATURES, 1, freq_hist_data_bar_values=[0.25]), "differ in length"),
    "logits in another order": (change_line(FEATURES, 1, pos_values=[1.5, 2.5]), "pos_values are not in order"),
    "an active latent without histogram": (
        change_line(FEATURES, 1, freq_hist_data_bar_heights=[], freq_hist_data_bar_values=[]),
        "no histogram",
    ),
    "a vector without hook": (change_line(FEATURES, 2, hookName=None), "without its hook"),
    "a vector of another width": (change_line(FEATURES, 2, vector=[1.0]), "another width"),
    "another maximum": (change_line(FEATURES, 1, maxActApprox=2.0), "maxActApprox is not the largest"),
    "another value": (change_line(ACTIVATIONS, 0, maxValue=2.0), "maxValue or minValue"),
    "another place": (change_line(ACTIVATIONS, 0, maxValueTokenIndex=1), "maxValueTokenIndex"),
    "a place outside": (change_line(ACTIVATIONS, 0, qualifyingTokenIndex=4), "qualifyingTokenIndex"),
    "a token too few": (change_line(ACTIVATIONS, 0, tokens=["a"]), "differ in length"),
    "an activation of no latent": (change_line(ACTIVATIONS, 0, index="5000"), "is not in the batch"),
    "latents in another order": (change_line(ACTIVATIONS, 2, index="0"), "latents are not in order"),
    "an id that is none": (change_line(ACTIVATIONS, 0, id="c1"), "no CUID"),
    "a label of no latent": (change_line(EXPLANATIONS, 0, index="5000"), "is not in the batch"),
    "an empty label": (change_line(EXPLANATIONS, 0, description=" "), "there is no text"),
    "another vector": (change_line(VECTOR_FILE, 0, vector=[0.5, -1.25, 3.5]), "not those of the features"),
    "a strength too large": (change_line(VECTOR_FILE, 0, vectorDefaultSteerStrength=301), "too large"),
    "a hook without vectors": (change_line(VECTOR_FILE, 0, hookType="hook_mlp_out"), "no vectors of this hook"),
    "a missing batch": (lambda folder: (folder / FEATURES).unlink(), "a batch of features is missing"),
    "missing activations": (lambda folder: (folder / ACTIVATIONS).unlink(), "maxActApprox is not the largest"),
    "another file": (lambda folder: (folder / "features" / "x").touch(), "a file that is no batch"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_reader_finds_mistakes(folder, mistake):
    change, problem = MISTAKES[mistake]
    change(folder)
    with pytest.raises(ValueError, match=re.escape(problem)):
        check_source(folder)


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_every_field_must_be_there_with_its_type(folder, kind):
    name, fields = f"{kind}.jsonl", FILES.get(kind, {})
    if kind in FOLDERS:
        name, fields = f"{kind}/batch-0.jsonl.gz", FOLDERS[kind]
    content = (folder / name).read_bytes()
    for field in fields:
        change_line(name, 0, **{field: ...})(folder)
        with pytest.raises(ValueError, match=f"line 1: {field} is missing"):
            check_source(folder)
        (folder / name).write_bytes(content)
        change_line(name, 0, **{field: {"of": "no type"}})(folder)
        with pytest.raises(ValueError, match=f"line 1: {field} has another type"):
            check_source(folder)
        (folder / name).write_bytes(content)
    assert check_source(folder)


def test_an_id_twice_is_found(folder):
    first, second = [one["id"] for one in read_rows(folder, "activations")][:2]
    change_line(ACTIVATIONS, 1, id=first)(folder)
    with pytest.raises(ValueError, match="an id is there twice"):
        check_source(folder)
    assert first != second


def test_ids_depend_only_on_what_they_name():
    ids = {
        make_id("gpt2-small", "8-mine", kind, latent) for kind in ("activation", "explanation") for latent in range(500)
    }
    assert len(ids) == 1000
    assert all(re.fullmatch(r"c[a-z0-9]{24}", one) for one in ids)
    assert make_id("a", "b", 1) == "cop210qkccjwixnxligemen5p"


@pytest.mark.parametrize("seed", range(20))
def test_tokens_and_values_are_those_of_a_slow_reference(seed):
    rng = np.random.default_rng(seed)
    tokens = ["".join(rng.choice(list("ab é\n"), rng.integers(1, 5))) for _ in range(rng.integers(1, 9))]
    values = [float(np.float32(rng.normal())) if rng.random() < 0.5 else 0.0 for _ in tokens]
    at = int(rng.integers(len(tokens)))
    values[at] = float(np.float32(5 * rng.choice([-1, 1])))
    starts = [sum(map(len, tokens[:number])) for number in range(len(tokens))]
    active = [
        {"start": start, "stop": start + len(token), "activation": value}
        for start, token, value in zip(starts, tokens, values, strict=True)
        if value
    ]
    before, after = "".join(tokens[:at]), "".join(tokens[at + 1 :])
    texts = {"before": before, "token": tokens[at], "after": after}
    found, shown = split_tokens({"activation": values[at], **texts, "active": active, "cuts": starts[1:]})
    assert found == tokens
    assert [np.float32(one) for one in shown] == [np.float32(one) for one in values]


def test_numbers_keep_all_digits_of_a_float32():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * np.float32(1e-3)
    assert [np.float32(shorten(float(one))) for one in values] == list(values)
    assert max(len(str(shorten(float(one)))) for one in values) < 18


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("gpt2", "gpt2-small"),
        ("openai-community/gpt2", "gpt2-small"),
        ("google/gemma-2-2b", "gemma-2-2b"),
        ("google/gemma-3-270m", "gemma-3-270m"),
        ("google/gemma-3-1b-pt", "gemma-3-1b"),
        ("EleutherAI/pythia-70m-deduped", "pythia-70m-deduped"),
        ("meta-llama/Llama-3.1-8B", "llama3.1-8b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-it"),
        ("Qwen/Qwen3-4B", "qwen3-4b"),
        ("my model/", "my-model"),
        ("???", "sae"),
    ],
)
def test_models_have_neuronpedias_names(name, id):
    assert name_model(name) == id


def test_sweeps_and_hooks_become_parts_of_addresses():
    assert [slugify(name) for name in ("My SAEs_v2.1", "--a--b--", "é")] == ["my-saes-v2-1", "a-b", "sae"]
    assert slugify("Topk-9.1_x ", "_.") == "topk-9.1_x"
    assert describe_site("hook_resid_pre")[0] == describe_site("hook_resid_post")[0] == "res"
    assert describe_site("hook_mlp_in") == ("mlp-in", "mlp-in")
