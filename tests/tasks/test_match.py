"""Task `match` on a sweep: which pairs are matched, their numbers from dense activations, and the report."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sae_sweeps.activations.source import load_source
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.report.finished import find_finished
from sae_sweeps.report.studies import collect_studies
from sae_sweeps.studies.matching import match
from sae_sweeps.sweep import Sweep
from tests.conftest import GIVEN, composed, launch
from tests.report.reading import Page
from tests.tasks.conftest import done, point


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, tiny):
    """Return the folder of a sweep with two sizes, two seeds and two orders of the data, matched and reported."""
    folder = tmp_path_factory.mktemp("seeds")
    words = ["sae=batchtopk", "dict_size=32,48", "seed=0,1", "dataset.seed=0,1", "then=[stitch,latents,match,report]"]
    ran = launch("-m", *tiny, *words, *GIVEN, cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "outputs" / "first"


def test_pairs_differ_in_one_setting(seeds):
    (study,) = done(seeds, "match")
    results = json.loads((study / "results.json").read_text())
    counts = {name: value for name, value in results["metrics"].items() if name.startswith("pairs_")}
    assert counts == {"pairs_seed": 4, "pairs_dataset_seed": 4, "pairs_dict_size": 4}
    assert {(row["differing"], row["same_start"]) for row in results["pairs"]} == {
        ("seed", False), ("dataset.seed", True), ("dict_size", False)
    }  # fmt: skip
    means = {name: results["metrics"][f"paired_mean_{name}"] for name in ("seed", "dataset_seed")}
    assert means["dataset_seed"] > 0.8 > means["seed"], "short training hardly moves the common start"


def test_the_numbers_are_those_of_active_latents(seeds, model_settings):
    (study,) = done(seeds, "match")
    row = next(one for one in json.loads((study / "results.json").read_text())["pairs"] if one["differing"] == "seed")
    source = load_source(composed(*model_settings, "device=cpu"), torch.device("cpu"))
    x_AD = torch.cat([batch for _, batch in source.held_out_text(150)])
    saes = [load_sae(seeds / row[side]) for side in ("left", "right")]
    frequencies = [(sae.encode(x_AD) > 0).float().mean(0) for sae in saes]
    active = [frequency.nonzero().squeeze(1) for frequency in frequencies]
    assert [row["left_active"], row["right_active"]] == [len(one) for one in active]
    found = match(*(sae.W_dec.detach()[latents] for sae, latents in zip(saes, active, strict=True)))
    for name, value in found.summarise(0.7).items():
        assert row[name] == pytest.approx(value, abs=1e-6)
    table = pq.read_table(study / "latents.parquet").to_pylist()
    rows = [one for one in table if (one["point"], one["other"]) == (row["left"], row["right"])]
    assert [one["latent"] for one in rows] == active[0].tolist()
    assert [one["nearest"] for one in rows] == active[1][found.left.index].tolist()
    acts = [sae.encode(x_AD)[:, latents].numpy() for sae, latents in zip(saes, active, strict=True)]
    dense = np.nan_to_num(np.corrcoef(*(each.T for each in acts))[: len(active[0]), len(active[0]) :])
    assert [one["correlation"] for one in rows] == pytest.approx(dense.max(1).tolist(), abs=1e-5)
    assert row["right_correlation_mean"] == pytest.approx(dense.max(0).mean(), abs=1e-5)
    assert row["right_correlation_mean"] > row["correlation_mean_chance"]
    assert [one["frequency"] for one in rows] == pytest.approx(frequencies[0][active[0]].tolist(), abs=1e-6)


def test_the_report_lists_pairs_with_their_seeds(seeds):
    page = (seeds / "report.html").read_text()
    section = page[page.index('id="matched"') :].partition("</section>")[0]
    assert section.count("<tr>") == 13
    assert section.count("<td>same initialisation</td>") == 4
    assert section.count("<td>other initialisation</td>") == 8
    assert "seed 1" in section


def test_cards_have_the_mean_cosine_with_saes_of_other_seeds(seeds):
    page = Page((seeds / "report.html").read_text())
    (study,) = done(seeds, "match")
    table, start = pq.read_table(study / "latents.parquet").to_pylist(), {}
    for pair in json.loads((study / "results.json").read_text())["pairs"]:
        if pair["differing"] != "dict_size":
            for a, b in (("left", "right"), ("right", "left")):
                start[pair[a], pair[b]] = pair["same_start"]
    shown = 0
    for card_set in page.data["explorer"]["card_sets"]:
        for latent, card in enumerate(page.cards(card_set)):
            rows = [row for row in table if (row["point"], row["latent"]) == (card_set["key"], latent)]
            for is_same in (False, True):
                alike = [row["cosine"] for row in rows if start.get((row["point"], row["other"])) == is_same]
                found = [one for one in card.get("t", []) if one[0] == is_same]
                expected = [[sum(alike) / len(alike), len(alike)]] if alike else []
                assert [one[1:] for one in found] == [pytest.approx(one, rel=5e-3) for one in expected]
                shown += len(found)
    assert shown > 100


def test_the_report_quotes_what_the_latents_of_families_respond_to(seeds):
    studies = find_finished(Sweep(seeds))
    for found in collect_studies(studies)["stitch"]:
        (folder,) = [one.folder for one in studies if one.folder.name == found["key"]]
        rows = pq.read_table(folder / "families.parquet").to_pylist()
        expected = [row["mse_change"] / found["metrics"]["mse_small"] for row in rows if row["frequency"] > 0]
        assert [swap["change"] for swap in found["swaps"]] == pytest.approx(expected[:5] + expected[5:][-5:], rel=1e-4)
        for swap in found["swaps"]:
            assert all(context.count("⟦") == 1 for one in swap["large"]["listed"] for context in one["contexts"])
            assert any(one["contexts"] for side in ("small", "large") for one in swap[side]["listed"])


def test_a_sweep_without_a_pair_is_refused(first, command):
    for folder in first.glob("*-48-*"):
        (folder / "results.json").unlink()
    ran = command("task=match", *GIVEN)
    assert ran.code == 1
    assert "batchtopk-48" in ran.err + ran.out


def test_a_point_of_the_sweep_has_a_match_of_another_size(first, command):
    ran = command("task=match", *GIVEN)
    assert (ran.code, ran.err) == (0, "")
    assert [folder.name.partition("-")[0] for folder in done(first, "match")] == ["batchtopk", "topk"]
    assert point(first, "topk-48").name in (done(first, "match")[1] / "results.json").read_text()


def test_saes_of_two_hooks_are_matched_by_their_activations_on_the_same_text(tmp_path, tiny):
    hooks = ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_post")
    words = [f"model.hook={','.join(hooks)}", "sae=topk", "then=[match,report]"]
    ran = launch("-m", *[word for word in tiny if "hook" not in word], *words, *GIVEN, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    sweep = tmp_path / "outputs" / "first"
    (study,) = done(sweep, "match")
    results = json.loads((study / "results.json").read_text())
    (row,) = results["pairs"]
    assert (row["differing"], row["same_start"]) == ("model.hook", True)
    assert results["metrics"]["pairs_model_hook"] == 1
    assert row["right_correlation_mean"] > row["correlation_mean_chance"]
    model = [word for word in tiny if word.startswith(("model.name", "dataset"))]
    acts = []
    for side in ("left", "right"):
        point_hook = json.loads((sweep / row[side] / "results.json").read_text())["point"]["hook"]
        source = load_source(composed(*model, f"model.hook={point_hook}", "device=cpu"), torch.device("cpu"))
        x_AD = torch.cat([batch for _, batch in source.held_out_text(150)])
        encoded = load_sae(sweep / row[side]).encode(x_AD).numpy()
        acts.append(encoded[:, encoded.any(0)])
    dense = np.nan_to_num(np.corrcoef(*(each.T for each in acts))[: acts[0].shape[1], acts[0].shape[1] :])
    assert row["left_correlation_mean"] == pytest.approx(dense.max(1).mean(), abs=1e-5)
    assert "<td>hook</td>" in (sweep / "report.html").read_text()
