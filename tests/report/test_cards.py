"""The number of cards and examples that fit into the page's limit; the encoding of blocks."""

import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sae_sweeps.report import cards
from sae_sweeps.report.blocks import Blocks, round_digits
from sae_sweeps.report.cards import EXAMPLES, CardSet, Contexts, encode_cards


def random_cards(number: int, latents: int = 100) -> CardSet:
    """The cards of an SAE with random words as tokens and contexts."""
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
    return CardSet(f"sae{number}", f"SAE {number}", Path(), pa.Table.from_pylist(rows), [{} for _ in rows])


@pytest.fixture(scope="module")
def card_sets() -> list[CardSet]:
    return [random_cards(0), random_cards(1), random_cards(2)]


def encode(card_sets: list[CardSet], max_bytes: int = 2**40) -> tuple[dict[str, Any], int]:
    """Encode cards. Returns their description in the page, and their bytes."""
    blocks = Blocks()
    return encode_cards(blocks, card_sets, max_bytes), blocks.size


def count_bytes(card_sets: list[CardSet], examples: int) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "EXAMPLES", (examples,))
        return encode(card_sets)[1]


def test_cards_get_as_many_examples_as_fit(card_sets, monkeypatch):
    monkeypatch.setattr(cards, "EXAMPLES", EXAMPLES[::2])
    sizes = {examples: count_bytes(card_sets, examples) for examples in cards.EXAMPLES}
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert encode(card_sets, int(1.05 * sizes[10]))[1] == sizes[10]
    for more, fewer in zip(cards.EXAMPLES, cards.EXAMPLES[1:], strict=False):
        assert encode(card_sets, (sizes[more] + sizes[fewer]) // 2)[1] == sizes[fewer]


def test_if_one_example_per_card_is_too_much_the_last_sets_get_no_cards(card_sets):
    two, three = count_bytes(card_sets[:2], 1), count_bytes(card_sets, 1)
    found, size = encode(card_sets, (two + three) // 2)
    assert [bool(one["cards"]) for one in found["card_sets"]] == [True, True, False]
    assert size <= (two + three) // 2
    assert found["card_sets"][2] == {
        **{"key": "sae2", "label": "SAE 2", "count": 100, "sae": None},
        **{"has_examples": True, "shuffled": None, "tokens": None, "stitched": [], "decomposed": []},
        **{"index": None, "cards": []},
    }


def test_the_first_set_keeps_one_example_per_card_whatever_the_limit(card_sets):
    found, size = encode(card_sets, 0)
    assert size == count_bytes(card_sets[:1], 1)
    assert [bool(one["cards"]) for one in found["card_sets"]] == [True, False, False]


@pytest.mark.parametrize("latents", [1, 204, 205, 1638, 1639, 1700, 3300])
def test_the_size_of_contexts_is_estimated_to_10_percent(latents):
    contexts = Contexts.from_card_sets([random_cards(0, latents)], 10)
    blocks = Blocks()
    for at, part in enumerate(contexts.split()):
        blocks.add(str(at), part)
    assert contexts.size == pytest.approx(blocks.size, rel=0.1)


def test_a_context_of_several_cards_is_stored_once():
    equal = [random_cards(0, 50), random_cards(0, 50)]
    contexts = Contexts.from_card_sets(equal, 10)
    assert len(contexts.numbers) == 500
    stored = [text for part in contexts.split() for text in part]
    assert stored == [list(texts) for _, *texts in sorted(contexts.numbers)]
    assert list(contexts.numbers.values()) == list(range(500))


def test_blocks_decode_to_the_text_or_json_that_was_added():
    blocks = Blocks()
    value = {"ü</script>": [1, 0.1, None, True, "\n\"'&𝄞"], "none": [float("nan"), float("-inf"), (2, 3)]}
    assert [blocks.add("one", value), blocks.add("two", "plain ü")] == ["one", "two"]
    one, two = (gzip.decompress(base64.b64decode(encoded)).decode() for encoded in blocks.encoded.values())
    assert json.loads(one) == value | {"none": [None, None, [2, 3]]}
    assert two == "plain ü"
    assert blocks.size == sum(map(len, blocks.encoded.values()))
    assert blocks.html().count("<script") == 2


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(123456.0, 5, 123460.0), (0.000123456, 3, 0.000123), (-0.0999999, 3, -0.1), (0.0, 3, 0.0), (7, 3, 7.0)],
)
def test_numbers_are_rounded_to_significant_digits(value, digits, expected):
    assert round_digits(value, digits) == expected


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_missing_and_non_finite_values_are_rounded_to_none(value):
    assert round_digits(value) is None
