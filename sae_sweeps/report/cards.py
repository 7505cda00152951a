"""The cards (descriptions of single latents) in the report: compressed blocks and an index for search."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sae_sweeps.report.blocks import Blocks, round_digits

CARDS_PER_BLOCK = 256  # a block is a piece of compressed data that the page decodes on demand
CONTEXTS_PER_BLOCK = 2048
BINS = 16  # of a histogram on a card, at most
FEWEST_TOKENS = 3  # suppressed tokens on a card, where there is room for fewer examples; else as many as examples
EXAMPLES = (10, 8, 6, 5, 4, 3, 2, 1)  # examples per card to try; the largest number that fits into the page is used

Row = dict[str, Any]
Context = tuple[int, str, str, str]  # token number in the text, text before, token, text after


@dataclass
class CardSet:
    """The cards (descriptions) of all latents of an SAE, or of all meta-latents of a meta-SAE.

    key: identifies the set in links
    label: name of the set in the page
    folder: folder of the SAE, or of the meta-SAE study
    rows: frequency, activations, examples and promoted tokens per latent (docs/studies.md); None if not computed
    facts: results of other studies, one dictionary per latent, with the one-letter keys of `_card`
    prefix: the part of `key` before the folder name of the point
    sae: for a meta-SAE, the key of the SAE that it decomposes; else None
    shuffled: for a meta-SAE, the explained variance of shuffled directions; else None
    tokens: number of held-out tokens on which frequencies, activations and examples were found; None if unknown
    """

    key: str
    label: str
    folder: Path
    rows: pa.Table | None
    facts: list[Row]
    prefix: str = ""
    sae: str | None = None
    shuffled: float | None = None
    tokens: int | None = None


def encode_cards(blocks: Blocks, card_sets: Sequence[CardSet], max_bytes: int) -> Row:
    """Add the cards (descriptions of latents) to `blocks` as compressed data of about `max_bytes` bytes.

    All cards get the same number of examples, as many as fit. If even one example per card is too large, the last sets
    get no cards; the first set always gets cards.

    Returns the index that the page needs: a description of each set, the names of the blocks with contexts (texts of
    examples), and the number of cards and contexts per block. A set without cards has no block names.
    """
    numbers = {card_set.key: number for number, card_set in enumerate(card_sets)}
    attempts = [(len(card_sets), examples) for examples in EXAMPLES]
    attempts += [(kept, EXAMPLES[-1]) for kept in range(len(card_sets) - 1, 0, -1)]
    for kept, examples in attempts:
        contexts = Contexts.from_card_sets(card_sets[:kept], examples)
        if contexts.size + sum(_estimate_size(one, contexts, numbers) for one in card_sets[:kept]) <= max_bytes:
            break
    return {
        "card_sets": [
            {
                "key": card_set.key,
                "label": card_set.label,
                "count": len(card_set.facts),
                "sae": None if card_set.sae is None else numbers[card_set.sae],
                "has_examples": card_set.rows is not None,
                "shuffled": card_set.shuffled,
                "tokens": card_set.tokens,
                **_list_studies(card_set.facts),
                **(
                    _add_blocks(blocks, card_set, number, contexts, numbers)
                    if number < kept
                    else {"index": None, "cards": []}
                ),
            }
            for number, card_set in enumerate(card_sets)
        ],
        "contexts": [blocks.add(f"contexts-{at}", part) for at, part in enumerate(contexts.split())],
        "cards_per_block": CARDS_PER_BLOCK,
        "contexts_per_block": CONTEXTS_PER_BLOCK,
    }


@dataclass
class Contexts:
    """The distinct contexts (texts of examples) of all cards, in the order of the text, which compresses well.

    examples: number of examples per card
    numbers: context -> number, counted from 0
    """

    examples: int
    numbers: dict[Context, int]

    @classmethod
    def from_card_sets(cls, card_sets: Sequence[CardSet], examples: int) -> "Contexts":
        """Return the contexts (texts) of the first `examples` examples of every latent."""
        found: set[Context] = set()
        for card_set in card_sets:
            if card_set.rows is not None:
                listed = pc.list_flatten(pc.list_slice(card_set.rows["examples"], 0, examples))
                found.update(map(to_context, listed.to_pylist()))
        return cls(examples, {context: number for number, context in enumerate(sorted(found))})

    def split(self, every: int = 1) -> Iterator[list[list[str]]]:
        """Yield lists of CONTEXTS_PER_BLOCK contexts, each context as [text before, token, text after].

        every: 1 to yield all lists, n to yield only every n-th
        """
        contexts = list(self.numbers)
        for first in range(0, len(contexts), CONTEXTS_PER_BLOCK * every):
            yield [list(texts) for _, *texts in contexts[first : first + CONTEXTS_PER_BLOCK]]

    @property
    def size(self) -> int:
        """Estimate the bytes of all contexts after compression, from a sample of one eighth."""
        sample, sampled = Blocks(), 0
        for at, part in enumerate(self.split(every=8)):
            sample.add(str(at), part)
            sampled += len(part)
        return sample.size * len(self.numbers) // max(1, sampled)


def to_context(example: Row) -> Context:
    """Convert an example from a latents table to (token number, text before, token, text after).

    The token number is 0 for older tables, which lack it.
    """
    return example.get("place") or 0, example["before"], example["token"], example["after"]


def _add_blocks(blocks: Blocks, card_set: CardSet, number: int, contexts: Contexts, numbers: Mapping[str, int]) -> Row:
    index = None
    if card_set.rows is not None:
        index = blocks.add(f"{number}-index", _index(card_set.rows, card_set.facts, contexts.examples))
    cards = [blocks.add(f"{number}-{at}", part) for at, part in enumerate(_split_cards(card_set, contexts, numbers))]
    return {"index": index, "cards": cards}


def _split_cards(card_set: CardSet, contexts: Contexts, numbers: Mapping[str, int]) -> Iterator[list[Row]]:
    """Yield the cards of a set as lists of at most CARDS_PER_BLOCK cards, in the order of the latents."""

    def find_number(point: str) -> int | None:
        return numbers.get(card_set.prefix + point)

    for first in range(0, len(card_set.facts), CARDS_PER_BLOCK):
        facts = card_set.facts[first : first + CARDS_PER_BLOCK]
        rows: Sequence[Row | None] = [None] * len(facts)
        if card_set.rows is not None:
            rows = card_set.rows.slice(first, CARDS_PER_BLOCK).to_pylist()
        yield [_card(row, known, contexts, find_number) for row, known in zip(rows, facts, strict=True)]


def _estimate_size(card_set: CardSet, contexts: Contexts, numbers: Mapping[str, int]) -> int:
    """Estimate the bytes of a set's cards and search index after compression, from the first CARDS_PER_BLOCK cards."""
    sample = Blocks()
    part = next(_split_cards(card_set, contexts, numbers))
    sample.add("cards", part)
    if card_set.rows is not None:
        rows, facts = card_set.rows.slice(0, CARDS_PER_BLOCK), card_set.facts[:CARDS_PER_BLOCK]
        sample.add("index", _index(rows, facts, contexts.examples))
    return sample.size * len(card_set.facts) // len(part)


def _card(row: Row | None, facts: Row, contexts: Contexts, find_number: Callable[[str], int | None]) -> Row:
    """Build the card (description) of a latent: a dictionary with one-letter keys, to keep the page small.

    f: frequency
    a: [mean, largest] activation over the tokens on which the latent is active
    e: examples, [activation, number of the context], and where the latent is active on other tokens of the context a
        flat list of [first character in the joined texts of the context, number of characters, activation]
    p: promoted output tokens, [token, logit]
    q: suppressed output tokens, [token, logit]; only if known
    h: [width, counts], the histogram of the magnitudes of activations, bins of one width from 0; only if known

    Only for a meta-latent:
    u: number of latents that use the meta-latent
    l: latents with the largest weights, [latent, weight]
    m: best matches in smaller SAEs, [card set, latent, cosine]

    From `facts`, which is returned unchanged if `row` is None:
    n: nearest latents in other SAEs, [card set, latent, cosine]
    s: stitching, [card set of the small SAE, novel, change in MSE / MSE of the small SAE, threshold]
    t: stability, [whether the other SAEs have the same initialisation, mean cosine, number of SAEs]
    d: decompositions, [card set of the meta-SAE, explained variance, [[meta-latent, weight], ...]]
    b: label, [text, score, source]; score and source may be null
    """
    if row is None:
        return facts
    examples = (row["examples"] or [])[: contexts.examples]
    card: Row = {
        **facts,
        "f": round_digits(row["frequency"], 3),
        "a": [round_digits(row["mean_activation"], 3), round_digits(row["max_activation"], 3)],
        "e": [_list_example(one, contexts) for one in examples],
        "p": _list_tokens(row["promoted"]),
    }
    if row.get("suppressed"):
        card["q"] = _list_tokens(row["suppressed"][: max(FEWEST_TOKENS, contexts.examples)])
    if row.get("histogram") and row["histogram"]["counts"]:
        card["h"] = _merge_bins(**row["histogram"])
    if "used_by" in row:
        card["u"] = row["used_by"]
        card["l"] = [[one["latent"], round_digits(one["weight"], 3)] for one in row["latents"] or []]
        matches = [(find_number(one["point"]), one) for one in row["matches"] or []]
        card["m"] = [[at, one["latent"], round_digits(one["cosine"], 3)] for at, one in matches if at is not None]
    return card


def _list_example(example: Row, contexts: Contexts) -> list[Any]:
    """Return an example as a card has it: see `e` of `_card`."""
    first = len(example["before"])
    last = first + len(example["token"])
    around = [
        number
        for one in example.get("active") or []
        if one["stop"] <= first or one["start"] >= last
        for number in (one["start"], one["stop"] - one["start"], round_digits(one["activation"], 2))
    ]
    listed = [round_digits(example["activation"], 3), contexts.numbers[to_context(example)]]
    return [*listed, around] if around else listed


def _merge_bins(width: float, counts: list[int]) -> list[Any]:
    """Return the width and the counts of a histogram of at most BINS bins: neighbours are merged where it has more."""
    while len(counts) > BINS:
        width, counts = 2 * width, [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
    return [width, counts]


def _list_tokens(tokens: Sequence[Row] | None) -> list[list[Any]]:
    return [[one["token"], round_digits(one["logit"], 3)] for one in tokens or []]


def _list_studies(facts: Sequence[Row]) -> Row:
    """Return the studies by whose results latents can be ordered: see `_index`.

    stitched: stitching studies, [card set of the small SAE, threshold]
    decomposed: card sets of meta-SAEs
    """
    first = facts[0] if facts else {}
    return {
        "stitched": [[small, threshold] for small, _, _, threshold in first.get("s", [])],
        "decomposed": sorted({meta for one in facts for meta, *_ in one.get("d", [])}),
    }


def _index(rows: pa.Table, facts: Sequence[Row], examples: int) -> Row:
    """Build the search index of a latents table: the distinct tokens, and the token numbers and frequency per latent.

    examples: number of examples per latent whose tokens can be found

    `novel` and `change` have a list per study of `stitched`, `explained` one per card set of `decomposed`, each with a
    value per latent: 1 if the latent is novel, else 0; the relative change in MSE; the explained variance. `labels` has
    a text or null per latent, and is empty if no latent has a label.
    """
    known: dict[str, int] = {}

    def number_tokens(listed: Sequence[Row] | None) -> list[int]:
        return [known.setdefault(one["token"], len(known)) for one in listed or []]

    shown, promoted = [], []
    for batch in rows.select(["examples", "promoted"]).to_batches(CARDS_PER_BLOCK):
        for row in batch.to_pylist():
            shown.append(number_tokens((row["examples"] or [])[:examples]))
            promoted.append(number_tokens(row["promoted"]))
    frequencies = [round_digits(value, 2) for value in rows["frequency"].to_pylist()]
    index = {"examples": shown, "promoted": promoted, "frequency": frequencies, "tokens": list(known)}
    stitched = range(len(facts[0].get("s", [])) if facts else 0)
    explained = [{meta: value for meta, value, _ in one.get("d", [])} for one in facts]
    labels = [one["b"][0] if "b" in one else None for one in facts]
    return {
        **index,
        "labels": labels if any(labels) else [],
        "novel": [[one["s"][at][1] for one in facts] for at in stitched],
        "change": [[round_digits(one["s"][at][2], 2) for one in facts] for at in stitched],
        "explained": [[one.get(meta) for one in explained] for meta in _list_studies(facts)["decomposed"]],
    }
