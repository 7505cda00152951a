"""The explorer of latents, on a tiny sweep of which all studies have run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sae_sweeps.report import cards, explorer
from sae_sweeps.sweep import Sweep
from tests.report import reference
from tests.report.reading import Page, page_of
from tests.report.test_page import NASTY
from tests.tasks.conftest import point, undo


@pytest.fixture(scope="module")
def shown(swept) -> Page:
    """The page as the command wrote it."""
    return Page((swept / "report.html").read_text())


def shelves(shown: Page) -> dict[str, dict[str, Any]]:
    return {shelf["key"]: shelf for shelf in shown.data["explorer"]["shelves"]}


def read_cards(shown: Page, key: str) -> list[dict[str, Any]]:
    """The cards of a shelf, with the text of their examples and without their nearest latents."""
    found = [{**card} for card in shown.cards(shelves(shown)[key])]
    for card in found:
        card.pop("n", None)
        if "e" in card:
            card["e"] = [[activation, shown.quotes[at]] for activation, at in card["e"]]
    return found


def check_cards(shown: Page, sweep: Path, prefix: str = "") -> int:
    """Hold all cards of a sweep against those that are made slowly; returns how many shelves there are."""
    numbers = {key: number for number, key in enumerate(shelves(shown))}
    saes = [folder.parent.name for folder in sweep.glob("*/sae")]
    for name in saes:
        assert read_cards(shown, prefix + name) == reference.sae_cards(sweep, name, numbers, prefix)
    metas = [file.parent for file in sweep.glob("meta_sae/*/results.json")]
    for folder in metas:
        assert read_cards(shown, prefix + folder.name) == reference.meta_cards(folder, numbers, prefix)
    return len(saes) + len(metas)


def check_nearest(shown: Page, folders: dict[str, Path]) -> None:
    """Hold the nearest latents against those by all cosines; `folders`: the sweep of the point of each key."""
    numbers = {key: number for number, key in enumerate(shelves(shown))}
    unit = {key: reference.directions(folder, key.split("/")[-1]) for key, folder in folders.items()}
    for key in folders:
        best = {other: (unit[key] @ unit[other].T).max(1) for other in folders if other != key}
        for latent, card in enumerate(shown.cards(shelves(shown)[key])):
            found = {shelf: (nearest, cosine) for shelf, nearest, cosine in card["n"]}
            assert len(found) == len(card["n"])
            assert found == {
                numbers[other]: (int(which.indices[latent]), pytest.approx(float(which.values[latent]), abs=6e-4))
                for other, which in best.items()
            }


def test_every_card_has_what_the_studies_tell_of_its_latent(swept, shown):
    assert check_cards(shown, swept) == len(shelves(shown)) == 6


def test_every_card_names_the_nearest_latent_of_every_other_sae(swept, shown):
    check_nearest(shown, {key: swept for key, shelf in shelves(shown).items() if shelf["of"] is None})


def test_shelves_are_saes_by_nmse_then_meta_saes_with_what_they_are_of(swept, shown):
    *saes, first, second = shown.data["explorer"]["shelves"]
    nmse = [json.loads((swept / shelf["key"] / "results.json").read_text())["metrics"]["nmse"] for shelf in saes]
    assert nmse == sorted(nmse)
    labels = {row["key"]: row["label"] for row in shown.data["points"]}
    for shelf in saes:
        assert (shelf["label"], shelf["told"], shelf["of"]) == (labels[shelf["key"]], True, None)
    for shelf in (first, second):
        study = json.loads((swept / "meta_sae" / shelf["key"] / "results.json").read_text())
        assert saes[shelf["of"]]["key"] == study["study"]["sae"]["point"]
        told = f"{study['metrics']['meta_latents']} meta-latents, k {study['study']['settings']['k']}, of"
        assert shelf["label"] == f"{told} {saes[shelf['of']]['label']}"
        assert shelf["shuffled"] == study["metrics"]["explained_variance_shuffled"]
    assert [shown.data["explorer"][lacks] for lacks in ("left_out", "slow", "unread")] == [[], [], []]


def test_an_index_has_the_tokens_of_every_card(shown):
    for shelf in shown.data["explorer"]["shelves"]:
        index, found = shown.block(shelf["index"]), shown.cards(shelf)
        assert len(set(index["tokens"])) == len(index["tokens"])
        assert shelf["count"] == len(found) == len(index["examples"]) == len(index["promoted"])
        for card, examples, promoted in zip(found, index["examples"], index["promoted"], strict=True):
            assert [index["tokens"][at] for at in examples] == [shown.quotes[at][1] for _, at in card["e"]]
            assert [index["tokens"][at] for at in promoted] == [token for token, _ in card["p"]]
        assert index["frequency"] == pytest.approx([card["f"] for card in found], rel=0.06)


def test_blocks_of_any_size_hold_every_card_and_quote_once(first, monkeypatch):
    monkeypatch.setattr(cards, "PER_BLOCK", 7)
    monkeypatch.setattr(cards, "QUOTES", 10)
    shown = page_of(Sweep(first))
    assert (shown.data["explorer"]["per_block"], shown.data["explorer"]["quotes_per_block"]) == (7, 10)
    for shelf in shown.data["explorer"]["shelves"]:
        sizes = [len(shown.block(name)) for name in shelf["cards"]]
        assert set(sizes[:-1]) == {7}
        assert sum(sizes) == shelf["count"]
    assert {len(shown.block(name)) for name in shown.data["explorer"]["quotes"][:-1]} == {10}
    check_cards(shown, first)
    used = [at for shelf in shown.data["explorer"]["shelves"] for card in shown.cards(shelf) for _, at in card["e"]]
    assert set(used) == set(range(len(shown.quotes)))


def test_a_sweep_of_which_nothing_tells_what_latents_mean_has_no_explorer(first):
    undo(first, "latents")
    undo(first, "meta_sae")
    assert page_of(Sweep(first)).data["explorer"] is None


def test_what_latents_mean_is_known_from_their_meta_sae_too(first):
    undo(first, "latents")
    shown = page_of(Sweep(first))
    told = {key for key, shelf in shelves(shown).items() if shelf["told"] and shelf["of"] is None}
    assert told == {point(first, f"{architecture}-48").name for architecture in ("batchtopk", "topk")}
    numbers = {key: number for number, key in enumerate(shelves(shown))}
    for key in told:
        assert read_cards(shown, key) == reference.sae_cards(first, key, numbers)


def test_saes_of_which_it_is_not_known_come_behind_and_have_their_nearest_latents(first):
    untold = point(first, "batchtopk-32").name
    (study,) = reference.of_point(first, "latents", untold)
    shutil.rmtree(study)
    results = json.loads((first / untold / "results.json").read_text())
    results["metrics"]["nmse"] = 0.0
    (first / untold / "results.json").write_text(json.dumps(results))
    shown = page_of(Sweep(first))
    saes = [shelf for shelf in shelves(shown).values() if shelf["of"] is None]
    assert [shelf["told"] for shelf in saes] == [True, True, True, False]
    assert (saes[-1]["key"], saes[-1]["index"]) == (untold, None)
    assert all(card.keys() == {"n"} for card in shown.cards(saes[-1]))
    check_nearest(shown, {shelf["key"]: first for shelf in saes})


def test_more_saes_than_have_room_are_named_and_their_meta_saes_are_not_there(first, monkeypatch):
    monkeypatch.setattr(explorer, "SAES", 1)
    shown = page_of(Sweep(first))
    sae, *metas = shown.data["explorer"]["shelves"]
    labels = {row["label"] for row in shown.data["points"]}
    assert set(shown.data["explorer"]["left_out"]) == labels - {sae["label"]}
    assert len(shown.data["explorer"]["left_out"]) == 3
    assert all(meta["of"] == 0 for meta in metas)
    assert all("n" not in card and "s" not in card for card in shown.cards(sae))


def test_saes_that_would_take_too_long_to_compare_are_named(first, monkeypatch):
    monkeypatch.setattr(explorer, "MULTIPLICATIONS", 16 * 48 * 48)
    shown = page_of(Sweep(first))
    not_compared = shown.data["explorer"]["slow"]
    saes = [shelf for shelf in shown.data["explorer"]["shelves"] if shelf["of"] is None]
    assert set(not_compared) <= {shelf["label"] for shelf in saes}
    for shelf in saes:
        others = {len(card.get("n", [])) for card in shown.cards(shelf)}
        assert (others == {3}) == (shelf["label"] not in not_compared)
    assert any("n" in card for shelf in saes for card in shown.cards(shelf))


def test_two_sweeps_with_points_of_the_same_names_do_not_mix(first):
    second = shutil.copytree(first, first.parent / "second")
    files = [*second.glob("*/*/latents.parquet"), *second.glob("*/*/meta_latents.parquet")]
    for file in files:
        change(file, lambda row: row | {"frequency": row["frequency"] / 2})
    shown = page_of(Sweep(first), Sweep(second))
    assert len(shelves(shown)) == len(shown.data["explorer"]["shelves"]) == 12
    assert len({row["key"] for row in shown.data["points"]}) == 8
    for folder in (first, second):
        assert check_cards(shown, folder, f"{folder.name}/") == 6
    for number, shelf in enumerate(shown.data["explorer"]["shelves"]):
        if shelf["of"] is not None:
            of = shown.data["explorer"]["shelves"][shelf["of"]]
            assert of["key"].split("/")[0] == shelf["key"].split("/")[0]
            assert of["label"] in shelf["label"], number
    folders = {key: first.parent / key.split("/")[0] for key, shelf in shelves(shown).items() if shelf["of"] is None}
    numbers = {key: number for number, key in enumerate(shelves(shown))}
    for key in folders:
        twin = key.replace("first/", "second/") if "first/" in key else key.replace("second/", "first/")
        for latent, card in enumerate(shown.cards(shelves(shown)[key])):
            assert [numbers[twin], latent, 1.0] in card["n"]


def test_studies_without_the_places_of_their_examples_are_shown_as_well(first, shown):
    for file in [*first.glob("*/*/latents.parquet"), *first.glob("*/*/meta_latents.parquet")]:
        if "examples" in pq.read_schema(file).names:
            change(file, without_places)
    again = page_of(Sweep(first))
    for key in shelves(shown):
        assert read_cards(again, key) == read_cards(shown, key)


def test_tokens_are_what_they_were_whatever_is_in_them(first):
    def change_tokens(row: dict[str, Any]) -> dict[str, Any]:
        quoted = [one | {"before": NASTY, "token": NASTY, "after": one["after"] + NASTY} for one in row["examples"]]
        return row | {"examples": quoted, "promoted": [one | {"token": NASTY + "!"} for one in row["promoted"]]}

    for file in first.glob("latents/*/latents.parquet"):
        change(file, change_tokens)
    shown = page_of(Sweep(first))
    check_cards(shown, first)
    index = shown.block(shelves(shown)[point(first, "topk-48").name]["index"])
    assert index["tokens"] == [NASTY, NASTY + "!"]


def test_the_page_takes_no_more_for_cards_than_it_may(first, shown):
    some = [name for shelf in shelves(shown).values() for name in [shelf["index"], *shelf["cards"]]]
    taken = sum(len(shown.by_id(f"block-{name}").text) for name in [*some, *shown.data["explorer"]["quotes"]])
    half = page_of(Sweep(first), most=taken // 2)
    names = [name for shelf in shelves(half).values() for name in [shelf["index"], *shelf["cards"]] if name]
    less = sum(len(half.by_id(f"block-{name}").text) for name in [*names, *half.data["explorer"]["quotes"]])
    assert taken / 4 < less < 1.05 * taken / 2
    one = page_of(Sweep(first), most=0)
    kept, *others = one.data["explorer"]["shelves"]
    assert {len(card["e"]) for card in one.cards(kept)} <= {0, 1}
    assert all((shelf["cards"], shelf["index"]) == ([], None) for shelf in others)
    assert [shelf["label"] for shelf in others] == [shelf["label"] for shelf in [*shelves(shown).values()][1:]]


def change(file: Path, how) -> None:
    table = pq.read_table(file)
    rows = [how(row) for row in table.to_pylist()]
    schema = table.schema if how is not without_places else None
    pq.write_table(table.from_pylist(rows, schema), file)


def without_places(row: dict[str, Any]) -> dict[str, Any]:
    quoted = [{key: value for key, value in one.items() if key != "place"} for one in row["examples"]]
    return row | {"examples": quoted}
