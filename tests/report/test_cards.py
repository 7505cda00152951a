"""How many cards, with how many examples, go into so many bytes."""

import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sae_sweeps.report import cards
from sae_sweeps.report.blocks import Blocks, rounded
from sae_sweeps.report.cards import EXAMPLES, Quotes, Shelf, pack


def shelf(number: int, latents: int = 100, of: str | None = None) -> Shelf:
    """An SAE whose latents are active on words that nothing else has."""
    chosen = random.Random(number)

    def word() -> str:
        return f"{chosen.getrandbits(40):x}"

    def row() -> dict[str, Any]:
        places = [chosen.getrandbits(30) for _ in range(10)]
        return {
            "frequency": chosen.random(),
            "mean_activation": chosen.random(),
            "max_activation": 1.0,
            "examples": [
                {"activation": chosen.random(), "place": at, "before": word(), "token": word(), "after": word()}
                for at in places
            ],
            "promoted": [{"token": word(), "logit": chosen.random()} for _ in range(3)],
        }

    rows = [row() for _ in range(latents)]
    return Shelf(f"sae{number}", f"SAE {number}", Path(), pa.Table.from_pylist(rows), [{} for _ in rows], "", of)


@pytest.fixture(scope="module")
def shelves() -> list[Shelf]:
    return [shelf(0), shelf(1), shelf(2)]


def packed(shelves: list[Shelf], most: int = 2**40) -> tuple[dict[str, Any], int]:
    """What the page knows of shelves, and how many bytes they take in it."""
    blocks = Blocks()
    return pack(blocks, shelves, most), blocks.size


def bytes_with(shelves: list[Shelf], examples: int) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "EXAMPLES", (examples,))
        return packed(shelves)[1]


def test_a_card_has_as_many_examples_as_fit(shelves, monkeypatch):
    monkeypatch.setattr(cards, "EXAMPLES", EXAMPLES[::2])
    sizes = {examples: bytes_with(shelves, examples) for examples in cards.EXAMPLES}
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert packed(shelves, int(1.05 * sizes[10]))[1] == sizes[10]
    for more, fewer in zip(cards.EXAMPLES, cards.EXAMPLES[1:], strict=False):
        assert packed(shelves, (sizes[more] + sizes[fewer]) // 2)[1] == sizes[fewer]


def test_if_one_example_each_is_too_much_the_last_shelves_have_no_cards(shelves):
    two, three = bytes_with(shelves[:2], 1), bytes_with(shelves, 1)
    found, size = packed(shelves, (two + three) // 2)
    assert [bool(one["cards"]) for one in found["shelves"]] == [True, True, False]
    assert size <= (two + three) // 2
    assert found["shelves"][2] == {
        **{"key": "sae2", "label": "SAE 2", "count": 100, "of": None},
        **{"told": True, "shuffled": None, "index": None, "cards": []},
    }


def test_one_example_of_the_first_shelf_stays_however_little_there_is_to_be(shelves):
    found, size = packed(shelves, 0)
    assert size == bytes_with(shelves[:1], 1)
    assert [bool(one["cards"]) for one in found["shelves"]] == [True, False, False]


@pytest.mark.parametrize("latents", [1, 204, 205, 1638, 1639, 1700, 3300])
def test_what_quotes_take_is_known_to_a_tenth(latents):
    quotes = Quotes.from_shelves([shelf(0, latents)], 10)
    blocks = Blocks()
    for at, part in enumerate(quotes.parts()):
        blocks.add(str(at), part)
    assert quotes.size == pytest.approx(blocks.size, rel=0.1)


def test_a_quote_that_many_cards_have_is_packed_once():
    twice = [shelf(0, 50), shelf(0, 50)]
    quotes = Quotes.from_shelves(twice, 10)
    assert len(quotes.numbers) == 500
    assert [text for part in quotes.parts() for text in part] == [list(texts) for _, *texts in sorted(quotes.numbers)]
    assert list(quotes.numbers.values()) == list(range(500))


def test_a_block_is_text_or_json_that_comes_out_as_it_went_in():
    blocks = Blocks()
    value = {"ü</script>": [1, 0.1, None, True, "\n\"'&𝄞"], "none": [float("nan"), float("-inf"), (2, 3)]}
    assert [blocks.add("one", value), blocks.add("two", "plain ü")] == ["one", "two"]
    one, two = (gzip.decompress(base64.b64decode(packed)).decode() for packed in blocks.packed.values())
    assert json.loads(one) == value | {"none": [None, None, [2, 3]]}
    assert two == "plain ü"
    assert blocks.size == sum(len(packed) for packed in blocks.packed.values())
    assert blocks.html().count("<script") == 2


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(123456.0, 5, 123460.0), (0.000123456, 3, 0.000123), (-0.0999999, 3, -0.1), (0.0, 3, 0.0), (7, 3, 7.0)],
)
def test_numbers_are_rounded_to_significant_digits(value, digits, expected):
    assert rounded(value, digits) == expected


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_rounded_to_none(value):
    assert rounded(value) is None
