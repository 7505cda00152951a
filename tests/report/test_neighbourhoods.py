"""The page's surroundings of meta-latents, compared with the tables of the studies; and the table of sizes."""

import json

import pyarrow.parquet as pq
import pytest

from sae_sweeps.report import neighbourhoods
from sae_sweeps.report.finished import find_finished
from sae_sweeps.report.meta_sizes import list_sizes
from sae_sweeps.report.studies import collect_studies
from sae_sweeps.sweep import Sweep
from tests.tasks.conftest import done


def list_weights(folder, points: list[str]) -> dict[tuple[int, int], dict[int, float]]:
    """Return the meta-latents of each latent with their weights, by (place of its SAE, latent)."""
    rows = pq.read_table(folder / "latents.parquet").to_pylist()
    return {
        (points.index(row.get("point", points[0])), row["latent"]): {
            part["meta_latent"]: part["weight"] for part in row["meta_latents"]
        }
        for row in rows
    }


@pytest.mark.parametrize(("task", "saes"), [("meta_sae", 1), ("meta_sizes", 2)])
@pytest.mark.parametrize("most", [32, 5])
def test_a_meta_latent_is_shown_with_its_strongest_latents_and_their_meta_latents(swept, monkeypatch, task, saes, most):
    monkeypatch.setattr(neighbourhoods, "META_LATENTS", most)
    monkeypatch.setattr(neighbourhoods, "LATENTS", 8)
    for study in collect_studies(find_finished(Sweep(swept)))[task]:
        folder, points = swept / task / study["key"], study["points"]
        assert len(points) == saes
        weights = list_weights(folder, points)
        users = {}
        for key, parts in weights.items():
            for meta in parts:
                users.setdefault(meta, []).append(key)
        shown = study["neighbourhoods"]
        assert len(shown) == min(most, len(users))
        assert shown[0]["used_by"] == max(map(len, users.values()))
        counts = [entry["used_by"] for entry in shown]
        assert counts == sorted(counts, reverse=True)
        if most < len(users):
            assert counts[-1] == min(map(len, users.values()))
        for entry in shown:
            meta = entry["meta_latent"]
            assert entry["used_by"] == len(users[meta])
            listed = [(place, latent) for place, latent, *_ in entry["latents"]]
            for place in range(saes):
                mine = [key for key in users[meta] if key[0] == place]
                strongest = sorted((weights[key][meta] for key in mine), reverse=True)[: 8 // saes]
                found = [weight for at, _, weight, _ in entry["latents"] if at == place]
                assert found == pytest.approx(strongest, rel=5e-3)
            assert len(set(listed)) == len(listed)
            for place, latent, weight, parts in entry["latents"]:
                own = weights[place, latent]
                assert weight == pytest.approx(own[meta], rel=5e-3)
                assert dict(parts) == pytest.approx(dict(sorted(own.items(), key=lambda one: -one[1])[:6]), rel=5e-3)


def test_the_table_has_a_row_for_each_size(swept):
    found = [
        row
        for folder in done(swept, "meta_sizes")
        for row in json.loads((folder / "results.json").read_text())["sizes"]
    ]
    labels = {(swept, one["point"]): f"label of {one['point']}" for one in found[:2]}
    titles, *rows = list_sizes(find_finished(Sweep(swept)), labels)
    assert len(rows) == len(found) == 4
    for row, one in zip(rows, found, strict=True):
        assert len(row) == len(titles)
        cells = dict(zip(titles, row, strict=True))
        assert cells["SAE"].startswith(f"{labels.get((swept, one['point']), one['point'])}: ")
        assert ", k 4" in cells["SAE"]
        assert cells["Meta-latents used"] == str(one["meta_latents"])
        assert float(cells["Explained variance"].rstrip("%")) == pytest.approx(
            100 * one["explained_variance"], abs=0.05
        )
        (other,) = one["nearest_latent_mean_of"]
        assert cells["Cosine with one of another size"].endswith(f" ({other})")
