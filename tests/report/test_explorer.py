"""The latent explorer, on a tiny sweep with all studies."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sae_sweeps.report import cards, explorer
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.labels import Label, write_labels
from tests.commands import rewrite_results
from tests.report import reference
from tests.report.reading import Page, read_page
from tests.report.test_page import NASTY
from tests.tasks.conftest import point, undo


@pytest.fixture(scope="module")
def shown(swept) -> Page:
    """The page as the command wrote it."""
    return Page((swept / "report.html").read_text())


def card_sets(shown: Page) -> dict[str, dict[str, Any]]:
    """The descriptions of all card sets by key."""
    return {card_set["key"]: card_set for card_set in shown.data["explorer"]["card_sets"]}


def read_cards(shown: Page, key: str) -> list[dict[str, Any]]:
    """The cards of a set, with the text of their examples and without their nearest latents."""
    found = [{**card} for card in shown.cards(card_sets(shown)[key])]
    for card in found:
        card.pop("n", None)
        if "e" in card:
            card["e"] = [[activation, shown.contexts[at], *around] for activation, at, *around in card["e"]]
    return found


def check_cards(shown: Page, sweep: Path, prefix: str = "") -> int:
    """Compare all cards of a sweep with the reference. Returns the number of its card sets."""
    numbers = {key: number for number, key in enumerate(card_sets(shown))}
    saes = [folder.parent.name for folder in sweep.glob("*/sae")]
    for name in saes:
        assert read_cards(shown, prefix + name) == reference.sae_cards(sweep, name, numbers, prefix)
    metas = [file.parent for file in sweep.glob("meta_sae/*/results.json")]
    for folder in metas:
        assert read_cards(shown, prefix + folder.name) == reference.meta_cards(folder, numbers, prefix)
    return len(saes) + len(metas)


def check_nearest(shown: Page, folders: dict[str, Path]) -> None:
    """Compare the nearest latents with those from all cosines. `folders`: the sweep of the point of each key."""
    numbers = {key: number for number, key in enumerate(card_sets(shown))}
    unit = {key: reference.directions(folder, key.split("/")[-1]) for key, folder in folders.items()}
    for key in folders:
        best = {other: (unit[key] @ unit[other].T).max(1) for other in folders if other != key}
        for latent, card in enumerate(shown.cards(card_sets(shown)[key])):
            found = {card_set: (nearest, cosine) for card_set, nearest, cosine in card["n"]}
            assert len(found) == len(card["n"])
            assert found == {
                numbers[other]: (int(matches.indices[latent]), pytest.approx(float(matches.values[latent]), abs=6e-4))
                for other, matches in best.items()
            }


def test_every_card_has_the_results_of_the_studies_of_its_latent(swept, shown):
    assert check_cards(shown, swept) == len(card_sets(shown)) == 6


def test_every_card_names_the_nearest_latent_of_every_other_sae(swept, shown):
    check_nearest(shown, {key: swept for key, card_set in card_sets(shown).items() if card_set["sae"] is None})


def test_card_sets_are_saes_by_nmse_then_meta_saes_with_their_saes(swept, shown):
    *saes, first, second = shown.data["explorer"]["card_sets"]
    nmse = [json.loads((swept / card_set["key"] / "results.json").read_text())["metrics"]["nmse"] for card_set in saes]
    assert nmse == sorted(nmse)
    labels = {row["key"]: row["label"] for row in shown.data["points"]}
    for card_set in saes:
        assert (card_set["label"], card_set["has_examples"], card_set["sae"]) == (labels[card_set["key"]], True, None)
    for card_set in (first, second):
        study = json.loads((swept / "meta_sae" / card_set["key"] / "results.json").read_text())
        assert saes[card_set["sae"]]["key"] == study["study"]["sae"]["point"]
        size = f"{study['metrics']['meta_latents']} meta-latents, k {study['study']['settings']['k']}, of"
        assert card_set["label"] == f"{size} {saes[card_set['sae']]['label']}"
        assert card_set["shuffled"] == study["metrics"]["explained_variance_shuffled"]
    assert [shown.data["explorer"][name] for name in ("without_cards", "too_slow", "unreadable")] == [[], [], []]


def test_the_search_index_has_the_tokens_of_every_card(shown):
    for card_set in shown.data["explorer"]["card_sets"]:
        index, found = shown.block(card_set["index"]), shown.cards(card_set)
        assert len(set(index["tokens"])) == len(index["tokens"])
        assert card_set["count"] == len(found) == len(index["examples"]) == len(index["promoted"])
        for card, examples, promoted in zip(found, index["examples"], index["promoted"], strict=True):
            assert [index["tokens"][at] for at in examples] == [shown.contexts[one[1]][1] for one in card["e"]]
            assert [index["tokens"][at] for at in promoted] == [token for token, _ in card["p"]]
        assert index["frequency"] == pytest.approx([card["f"] for card in found], rel=0.06)
        assert len(index["novel"]) == len(index["change"]) == len(card_set["stitched"])
        for at, (small, threshold) in enumerate(card_set["stitched"]):
            studies = [card["s"][at] for card in found]
            assert {(one[0], one[3]) for one in studies} == {(small, threshold)}
            assert index["novel"][at] == [one[1] for one in studies]
            assert index["change"][at] == pytest.approx([one[2] for one in studies], rel=0.06)
        for meta, explained in zip(card_set["decomposed"], index["explained"], strict=True):
            known = [{one[0]: one[1] for one in card.get("d", [])} for card in found]
            assert explained == [one.get(meta) for one in known]
    ordered = [(len(card_set["stitched"]), len(card_set["decomposed"])) for card_set in card_sets(shown).values()]
    assert sorted(ordered, reverse=True) == [(1, 1), (1, 1), *[(0, 0)] * 4]


def test_blocks_of_any_size_hold_every_card_and_context_once(first, monkeypatch):
    monkeypatch.setattr(cards, "CARDS_PER_BLOCK", 7)
    monkeypatch.setattr(cards, "CONTEXTS_PER_BLOCK", 10)
    shown = read_page(Sweep(first))
    assert (shown.data["explorer"]["cards_per_block"], shown.data["explorer"]["contexts_per_block"]) == (7, 10)
    for card_set in shown.data["explorer"]["card_sets"]:
        sizes = [len(shown.block(name)) for name in card_set["cards"]]
        assert set(sizes[:-1]) == {7}
        assert sum(sizes) == card_set["count"]
    assert {len(shown.block(name)) for name in shown.data["explorer"]["contexts"][:-1]} == {10}
    check_cards(shown, first)
    used = [
        one[1]
        for card_set in shown.data["explorer"]["card_sets"]
        for card in shown.cards(card_set)
        for one in card["e"]
    ]
    assert set(used) == set(range(len(shown.contexts)))


def test_a_sweep_without_latents_and_meta_sae_studies_has_no_explorer(first):
    undo(first, "latents")
    undo(first, "meta_sae")
    assert read_page(Sweep(first)).data["explorer"] is None


def test_examples_of_a_meta_sae_study_are_used_if_there_is_no_latents_study(first):
    undo(first, "latents")
    shown = read_page(Sweep(first))
    with_examples = {
        key for key, card_set in card_sets(shown).items() if card_set["has_examples"] and card_set["sae"] is None
    }
    assert with_examples == {point(first, f"{architecture}-48").name for architecture in ("batchtopk", "topk")}
    numbers = {key: number for number, key in enumerate(card_sets(shown))}
    for key in with_examples:
        assert read_cards(shown, key) == reference.sae_cards(first, key, numbers)


def test_saes_without_examples_come_last_and_have_nearest_latents(first):
    without_examples = point(first, "batchtopk-32").name
    (study,) = reference.find_studies(first, "latents", without_examples)
    shutil.rmtree(study)
    rewrite_results(first / without_examples, lambda results: results["metrics"].update(nmse=0.0))
    shown = read_page(Sweep(first))
    saes = [card_set for card_set in card_sets(shown).values() if card_set["sae"] is None]
    assert [card_set["has_examples"] for card_set in saes] == [True, True, True, False]
    assert (saes[-1]["key"], saes[-1]["index"]) == (without_examples, None)
    assert all(card.keys() == {"n"} for card in shown.cards(saes[-1]))
    check_nearest(shown, {card_set["key"]: first for card_set in saes})


def test_saes_beyond_the_limit_are_listed_and_their_meta_saes_left_out(first, monkeypatch):
    monkeypatch.setattr(explorer, "MAX_SAES", 1)
    shown = read_page(Sweep(first))
    sae, *metas = shown.data["explorer"]["card_sets"]
    labels = {row["label"] for row in shown.data["points"]}
    assert set(shown.data["explorer"]["without_cards"]) == labels - {sae["label"]}
    assert len(shown.data["explorer"]["without_cards"]) == 3
    assert all(meta["sae"] == 0 for meta in metas)
    assert all("n" not in card and "s" not in card for card in shown.cards(sae))


def test_saes_that_would_take_too_long_to_compare_are_listed(first, monkeypatch):
    monkeypatch.setattr(explorer, "MAX_MULTIPLICATIONS", 16 * 48 * 48)
    shown = read_page(Sweep(first))
    not_compared = shown.data["explorer"]["too_slow"]
    saes = [card_set for card_set in shown.data["explorer"]["card_sets"] if card_set["sae"] is None]
    assert set(not_compared) <= {card_set["label"] for card_set in saes}
    for card_set in saes:
        others = {len(card.get("n", [])) for card in shown.cards(card_set)}
        assert (others == {3}) == (card_set["label"] not in not_compared)
    assert any("n" in card for card_set in saes for card in shown.cards(card_set))


def test_points_of_the_same_name_in_two_sweeps_are_kept_apart(first):
    second = shutil.copytree(first, first.parent / "second")
    files = [*second.glob("*/*/latents.parquet"), *second.glob("*/*/meta_latents.parquet")]
    for file in files:
        if "meta_sizes" not in file.parts:  # those tables have no frequencies
            change(file, lambda row: row | {"frequency": row["frequency"] / 2})
    shown = read_page(Sweep(first), Sweep(second))
    assert len(card_sets(shown)) == len(shown.data["explorer"]["card_sets"]) == 12
    assert len({row["key"] for row in shown.data["points"]}) == 8
    for folder in (first, second):
        assert check_cards(shown, folder, f"{folder.name}/") == 6
    for number, card_set in enumerate(shown.data["explorer"]["card_sets"]):
        if card_set["sae"] is not None:
            sae = shown.data["explorer"]["card_sets"][card_set["sae"]]
            assert sae["key"].split("/")[0] == card_set["key"].split("/")[0]
            assert sae["label"] in card_set["label"], number
    folders = {
        key: first.parent / key.split("/")[0] for key, card_set in card_sets(shown).items() if card_set["sae"] is None
    }
    numbers = {key: number for number, key in enumerate(card_sets(shown))}
    for key in folders:
        twin = key.replace("first/", "second/") if "first/" in key else key.replace("second/", "first/")
        for latent, card in enumerate(shown.cards(card_sets(shown)[key])):
            assert [numbers[twin], latent, 1.0] in card["n"]


def test_older_tables_without_what_is_new_give_the_other_parts_of_the_cards(first, shown):
    for file in [*first.glob("*/*/latents.parquet"), *first.glob("*/*/meta_latents.parquet")]:
        if "examples" in pq.read_schema(file).names:
            change(file, as_before)
    again = read_page(Sweep(first))
    check_cards(again, first)
    for key in card_sets(shown):
        known = [{name: card[name] for name in card if name not in "qh"} for card in read_cards(shown, key)]
        for card in known:
            card["e"] = [one[:2] for one in card["e"]]
        assert read_cards(again, key) == known


def test_tokens_with_special_characters_are_unchanged(first):
    def change_tokens(row: dict[str, Any]) -> dict[str, Any]:
        quoted = [one | {"before": NASTY, "token": NASTY, "after": one["after"] + NASTY} for one in row["examples"]]
        return row | {"examples": quoted, "promoted": [one | {"token": NASTY + "!"} for one in row["promoted"]]}

    for file in first.glob("latents/*/latents.parquet"):
        change(file, change_tokens)
    shown = read_page(Sweep(first))
    check_cards(shown, first)
    index = shown.block(card_sets(shown)[point(first, "topk-48").name]["index"])
    assert index["tokens"] == [NASTY, NASTY + "!"]


def test_labels_are_on_the_cards_and_in_the_search_index_of_their_latents(first, shown):
    name, other = point(first, "topk-48").name, point(first, "batchtopk-32").name
    labels = {name: {0: Label(NASTY, 0.12345, "by hand"), 47: Label("last")}, other: {3: Label("third")}}
    write_labels(first, labels | {"topk-9-k1-seed0-01234567": {0: Label("of no SAE")}})
    again = read_page(Sweep(first))
    for key, card_set in card_sets(again).items():
        expected = labels.get(key, {})
        found = again.cards(card_set)
        assert {latent for latent, card in enumerate(found) if "b" in card} == set(expected)
        index = again.block(card_set["index"])["labels"]
        texts = [expected[latent].text if latent in expected else None for latent in range(card_set["count"])]
        assert index == (texts if expected else [])
        assert [{**card, "b": None} for card in found] == [{**card, "b": None} for card in shown.cards(card_set)]
    cards_of = again.cards(card_sets(again)[name])
    assert (cards_of[0]["b"], cards_of[47]["b"]) == ([NASTY, 0.123, "by hand"], ["last", None, None])


def test_labels_of_two_sweeps_with_equal_points_are_kept_apart(first):
    second = shutil.copytree(first, first.parent / "second")
    name = point(first, "topk-48").name
    write_labels(second, {name: {1: Label("of the second")}})
    again = read_page(Sweep(first), Sweep(second))
    labelled = {key for key, card_set in card_sets(again).items() if any("b" in one for one in again.cards(card_set))}
    assert labelled == {f"second/{name}"}


def test_the_cards_stay_below_the_limit(first, shown):
    some = [name for card_set in card_sets(shown).values() for name in [card_set["index"], *card_set["cards"]]]
    taken = sum(len(shown.find_id(f"block-{name}").text) for name in [*some, *shown.data["explorer"]["contexts"]])
    half = read_page(Sweep(first), max_bytes=taken // 2)
    names = [name for card_set in card_sets(half).values() for name in [card_set["index"], *card_set["cards"]] if name]
    less = sum(len(half.find_id(f"block-{name}").text) for name in [*names, *half.data["explorer"]["contexts"]])
    assert taken / 4 < less < 1.05 * taken / 2
    one = read_page(Sweep(first), max_bytes=0)
    kept, *others = one.data["explorer"]["card_sets"]
    assert {len(card["e"]) for card in one.cards(kept)} <= {0, 1}
    assert all((card_set["cards"], card_set["index"]) == ([], None) for card_set in others)
    assert [card_set["label"] for card_set in others] == [
        card_set["label"] for card_set in [*card_sets(shown).values()][1:]
    ]


def change(file: Path, how) -> None:
    table = pq.read_table(file)
    rows = [how(row) for row in table.to_pylist()]
    schema = table.schema if how is not as_before else None
    pq.write_table(table.from_pylist(rows, schema), file)
    rewrite_results(file.parent)


def as_before(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table of a version that did not write all of it."""
    quoted = [
        {key: value for key, value in one.items() if key not in ("place", "active", "cuts")} for one in row["examples"]
    ]
    known = {key: value for key, value in row.items() if key not in ("suppressed", "histogram", "logits")}
    return known | {"examples": quoted}
