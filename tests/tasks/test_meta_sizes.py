"""Task `meta_sizes` on a tiny sweep: results against dense weights of the saved meta-SAE, tables, and resuming."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.formats import saelens
from sae_sweeps.runtime import signals
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks import meta_sizes
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done, point, raise_at, undo

COLUMNS = {
    "latents": {
        "point": "string",
        "latent": "int32",
        "explained": "float",
        "meta_latents": "list<element: struct<meta_latent: int32, weight: float>>",
    },
    "meta_latents": {
        "meta_latent": "int32",
        "used_by": "int32",
        "used_by_sae": "list<element: struct<point: string, latents: int32>>",
        "latents": "list<element: struct<point: string, latent: int32, weight: float>>",
    },
}
SIZES = (32, 48)


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def table(folder, name: str) -> list[dict]:
    """Return the rows of a table, and check its columns."""
    found = pq.read_table(folder / f"{name}.parquet")
    assert {column.name: str(column.type) for column in found.schema} == COLUMNS[name]
    return found.to_pylist()


@pytest.fixture(params=["batchtopk", "topk"])
def studied(swept, request) -> Path:
    """Return the folder of the study of both sizes of an architecture."""
    title = f"{request.param}-32-k4-seed0--{request.param}-48-k4-seed0-meta-k4"
    (folder,) = done(swept, "meta_sizes", title)
    return folder


def active_latents(swept: Path, name: str) -> list[int]:
    """Return the latents of a point's SAE that are active in the text, by the task `latents`."""
    (folder,) = [one for one in done(swept, "latents") if results(one)["study"]["sae"]["point"] == name]
    frequency = pq.read_table(folder / "latents.parquet")["frequency"].to_pylist()
    return [latent for latent, share in enumerate(frequency) if share > 0]


def decompose_densely(swept: Path, studied: Path) -> dict[str, tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Return for each point its active latents, their directions, and the weights that the saved meta-SAE finds."""
    meta, found = saelens.read(studied / "sae"), {}
    for size in SIZES:
        name = results(studied)["study"][f"size_{size}"]["point"]
        latents = active_latents(swept, name)
        W_dec_FD = saelens.read(swept / name / "sae").W_dec.detach()
        directions_AD = torch.nn.functional.normalize(W_dec_FD[latents], dim=1)
        found[name] = (latents, directions_AD, meta.encode(directions_AD).detach())
    return found


def test_the_results_are_those_of_the_saved_meta_sae(swept, studied):
    found, dense = results(studied), decompose_densely(swept, studied)
    metrics, meta = found["metrics"], saelens.read(studied / "sae")
    assert saelens.describe(studied / "sae").directions_of == ", ".join(dense)
    decomposed = sum(len(latents) for latents, _, _ in dense.values())
    assert metrics["decomposed"] == decomposed
    assert metrics["decomposed"] + metrics["never_active"] == metrics["latents"] == sum(SIZES)
    assert metrics["never_active"] > 0, "else nothing is left out"
    assert metrics["meta_latents"] == meta.dict_size == decomposed // 4
    used = [(weight_AM > 0).any(0) for _, _, weight_AM in dense.values()]
    assert metrics["meta_latents_of_all_sizes"] == int((used[0] & used[1]).sum())
    assert metrics["meta_latents_unused"] == int((~(used[0] | used[1])).sum())
    assert metrics["l0"] == sum((weight_AM > 0).sum().item() for *_, weight_AM in dense.values()) / decomposed
    for at, (row, (name, (latents, directions_AD, weight_AM))) in enumerate(
        zip(found["sizes"], dense.items(), strict=True)
    ):
        assert (row["point"], row["dict_size"], row["decomposed"]) == (name, SIZES[at], len(latents))
        assert row["never_active"] == SIZES[at] - len(latents)
        assert row["meta_latents"] == int(used[at].sum())
        assert row["meta_latents_only_here"] == int((used[at] & ~used[1 - at]).sum())
        counts = (weight_AM > 0).sum(1)
        assert row["l0"] == pytest.approx(counts.float().mean().item())
        assert row["meta_latents_per_latent"] == torch.bincount(counts).tolist()
        error = (directions_AD - meta(directions_AD)).square().sum()
        spread = (directions_AD - directions_AD.mean(0)).square().sum()
        assert row["explained_variance"] == pytest.approx(1 - (error / spread).item(), abs=1e-5)
        assert found["shared"][at][1 - at] == int((used[0] & used[1]).sum()) / int(used[at].sum())
        assert found["shared"][at][at] == found["shared_shuffled"][at][at] == 1


def test_the_tables_have_the_weights_of_every_latent(swept, studied):
    dense = decompose_densely(swept, studied)
    rows, meta_rows = table(studied, "latents"), table(studied, "meta_latents")
    names = [name for name, size in zip(dense, SIZES, strict=True) for _ in range(size)]
    assert [(row["point"], row["latent"]) for row in rows] == [
        *zip(names, [*range(SIZES[0]), *range(SIZES[1])], strict=True)
    ]
    weights = {}
    for row in rows:
        latents, _, weight_AM = dense[row["point"]]
        if row["latent"] not in latents:
            assert (row["explained"], row["meta_latents"]) == (None, [])
            continue
        found = {part["meta_latent"]: part["weight"] for part in row["meta_latents"]}
        expected_M = weight_AM[latents.index(row["latent"])]
        assert sorted(found) == expected_M.nonzero().squeeze(1).tolist()
        assert_close(torch.tensor([found[meta] for meta in sorted(found)]), expected_M[expected_M > 0])
        weights |= {(row["point"], row["latent"], meta): weight for meta, weight in found.items()}
    assert [row["meta_latent"] for row in meta_rows] == list(range(results(studied)["metrics"]["meta_latents"]))
    for row in meta_rows:
        users = {key: weight for key, weight in weights.items() if key[2] == row["meta_latent"]}
        assert row["used_by"] == len(users)
        by_sae = {one["point"]: one["latents"] for one in row["used_by_sae"]}
        assert by_sae == {name: sum(key[0] == name for key in users) for name in dense}
        listed = [(one["point"], one["latent"], row["meta_latent"]) for one in row["latents"]]
        strongest = sorted(users, key=users.get, reverse=True)
        expected = [key for name in dense for key in [one for one in strongest if one[0] == name][:20]]
        assert sorted(listed) == sorted(expected)
        assert [users[key] for key in listed] == sorted((users[key] for key in listed), reverse=True)


def test_latents_that_are_never_active_can_be_decomposed_too(first, command):
    undo(first, "meta_sizes")
    ran = command("task=meta_sizes", *GIVEN, "meta.include_dead=true", "meta.dict_size=7", "meta.k=2")
    assert (ran.code, ran.err) == (0, "")
    folders = done(first, "meta_sizes")
    assert [folder.name.rpartition("-")[0][-8:] for folder in folders] == ["meta7-k2"] * 2
    for folder in folders:
        metrics = results(folder)["metrics"]
        assert (metrics["decomposed"], metrics["meta_latents"]) == (80, 7)
        assert metrics["never_active"] > 0
    assert "7 meta-latents explain" in ran.out


@pytest.mark.parametrize(("at", "error", "step"), [(40, signals.Stopped, 39), (95, KeyboardInterrupt, 25)])
def test_a_stopped_study_resumes_to_the_same_bytes(first, swept, monkeypatch, caplog, at, error, step):
    caplog.set_level("INFO")
    whole = done(swept, "meta_sizes")
    undo(first, "meta_sizes")
    config = composed(*GIVEN)

    with monkeypatch.context() as patched:
        patched.setattr(signals, "raise_if_stopped", raise_at(at, error))
        with pytest.raises(error):
            meta_sizes.run(Sweep(first), config)
    (stopped,) = (first / "meta_sizes").iterdir()
    assert not (stopped / "results.json").exists()
    assert meta_sizes.run(Sweep(first), config) == []
    assert f"resuming at step {step} of 60" in caplog.text
    assert [folder.name for folder in done(first, "meta_sizes")] == [folder.name for folder in whole]
    for again, folder in zip(done(first, "meta_sizes"), whole, strict=True):
        for name in ("sae/sae_weights.safetensors", "metrics.jsonl", "control/metrics.jsonl", "latents.parquet"):
            assert (again / name).read_bytes() == (folder / name).read_bytes()
        for name in ("metrics", "sizes", "shared", "shared_shuffled"):
            assert results(again)[name] == results(folder)[name]


def test_a_sweep_of_one_size_is_refused(first, command):
    undo(first, "meta_sizes")
    for folder in first.glob("*topk-48*"):
        (folder / "results.json").unlink()
    ran = command("task=meta_sizes", *GIVEN)
    assert ran.code == 1
    assert point(first, "batchtopk-48").name in ran.err
    assert not done(first, "meta_sizes")
