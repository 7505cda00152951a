"""The cards of latents as the page holds them: in blocks, of which it unpacks what is looked at, and with each shelf of
cards an index to search in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sae_sweeps.report.blocks import Blocks, rounded

PER_BLOCK = 256  # cards
EXAMPLES = (10, 8, 6, 5, 4, 3, 2, 1)  # per card: the most that fit into the page

QUOTES = 2048  # of a block

Row = dict[str, Any]
Quote = tuple[int, str, str, str]  # place, before, token, after


@dataclass
class Shelf:
    """The cards of an SAE's latents, or of the meta-latents of a meta-SAE of the SAE `of`.

    `rows` is the table that tells what they mean (docs/studies.md), None if nothing does; `facts` what else is known of
    each, as `_card` names it. `folder` is that of the SAE, or of the meta-SAE's study. `prefix` stands before the
    folder of a point in its key.
    """

    key: str
    label: str
    folder: Path
    rows: pa.Table | None
    facts: list[Row]
    prefix: str = ""
    of: str | None = None
    shuffled: float | None = None  # of a meta-SAE: the share that is explained of shuffled directions


def pack(blocks: Blocks, shelves: Sequence[Shelf], most: int) -> Row:
    """Add the cards in at most about so many bytes: as many examples on each as fit; if one is too many, the cards of
    the first shelves alone. Returns a description of each shelf; that of one that did not fit has no blocks."""
    numbers = {shelf.key: number for number, shelf in enumerate(shelves)}
    tries = [(len(shelves), examples) for examples in EXAMPLES]
    tries += [(kept, EXAMPLES[-1]) for kept in range(len(shelves) - 1, 0, -1)]
    for kept, examples in tries:
        quotes = Quotes.from_shelves(shelves[:kept], examples)
        if quotes.size + sum(_size(one, quotes, numbers) for one in shelves[:kept]) <= most:
            break
    return {
        "shelves": [
            {
                "key": shelf.key,
                "label": shelf.label,
                "count": len(shelf.facts),
                "of": None if shelf.of is None else numbers[shelf.of],
                "told": shelf.rows is not None,
                "shuffled": shelf.shuffled,
                **(_blocks(blocks, shelf, number, quotes, numbers) if number < kept else {"index": None, "cards": []}),
            }
            for number, shelf in enumerate(shelves)
        ],
        "quotes": [blocks.add(f"quotes-{at}", part) for at, part in enumerate(quotes.parts())],
        "per_block": PER_BLOCK,
        "quotes_per_block": QUOTES,
    }


@dataclass
class Quotes:
    """The text of all examples, each place once, in the order of the text: what stands together is packed together."""

    examples: int  # of a card
    numbers: dict[Quote, int]

    @classmethod
    def from_shelves(cls, shelves: Sequence[Shelf], examples: int) -> "Quotes":
        found: set[Quote] = set()
        for shelf in shelves:
            if shelf.rows is not None:
                some = pc.list_flatten(pc.list_slice(shelf.rows["examples"], 0, examples))
                found.update(map(quote_of, some.to_pylist()))
        return cls(examples, {quote: number for number, quote in enumerate(sorted(found))})

    def parts(self, every: int = 1) -> Iterator[list[list[str]]]:
        """Before, token and after, a block at a time; of each so many blocks the first."""
        quotes = list(self.numbers)
        for first in range(0, len(quotes), QUOTES * every):
            yield [list(texts) for _, *texts in quotes[first : first + QUOTES]]

    @property
    def size(self) -> int:
        """About how many bytes they take."""
        sample, sampled = Blocks(), 0
        for at, part in enumerate(self.parts(every=8)):
            sample.add(str(at), part)
            sampled += len(part)
        return sample.size * len(self.numbers) // max(1, sampled)


def quote_of(example: Row) -> Quote:
    return example.get("place") or 0, example["before"], example["token"], example["after"]


def _blocks(blocks: Blocks, shelf: Shelf, number: int, quotes: Quotes, numbers: Mapping[str, int]) -> Row:
    index = None
    if shelf.rows is not None:
        index = blocks.add(f"{number}-index", _index(shelf.rows, quotes.examples))
    cards = [blocks.add(f"{number}-{at}", part) for at, part in enumerate(_parts(shelf, quotes, numbers))]
    return {"index": index, "cards": cards}


def _parts(shelf: Shelf, quotes: Quotes, numbers: Mapping[str, int]) -> Iterator[list[Row]]:
    def number(point: str) -> int | None:
        return numbers.get(shelf.prefix + point)

    for first in range(0, len(shelf.facts), PER_BLOCK):
        facts = shelf.facts[first : first + PER_BLOCK]
        rows: Sequence[Row | None] = [None] * len(facts)
        if shelf.rows is not None:
            rows = shelf.rows.slice(first, PER_BLOCK).to_pylist()
        yield [_card(row, known, quotes, number) for row, known in zip(rows, facts, strict=True)]


def _size(shelf: Shelf, quotes: Quotes, numbers: Mapping[str, int]) -> int:
    """About how many bytes the cards take, going by the first block."""
    sample = Blocks()
    part = next(_parts(shelf, quotes, numbers))
    sample.add("cards", part)
    if shelf.rows is not None:
        sample.add("index", _index(shelf.rows.slice(0, PER_BLOCK), quotes.examples))
    return sample.size * len(shelf.facts) // len(part)


def _card(row: Row | None, facts: Row, quotes: Quotes, number: Callable[[str], int | None]) -> Row:
    """What a card shows, by letter: f frequency, a activation where active (mean, largest), e examples (activation,
    quote), p output tokens raised (token, logit); of meta-latents u by how many latents it is used, l those with the
    largest weights (latent, weight), m matches (shelf, latent, cosine). And the facts: of latents n nearest latents
    (shelf, latent, cosine), s stitching (shelf of the small SAE, novel, change in MSE over that of the small SAE,
    threshold), d decompositions (shelf, share explained, [meta-latent, weight])."""
    if row is None:
        return facts
    examples = (row["examples"] or [])[: quotes.examples]
    card: Row = {
        **facts,
        "f": rounded(row["frequency"], 3),
        "a": [rounded(row["mean_activation"], 3), rounded(row["max_activation"], 3)],
        "e": [[rounded(one["activation"], 3), quotes.numbers[quote_of(one)]] for one in examples],
        "p": [[one["token"], rounded(one["logit"], 3)] for one in row["promoted"] or []],
    }
    if "used_by" in row:
        card["u"] = row["used_by"]
        card["l"] = [[one["latent"], rounded(one["weight"], 3)] for one in row["latents"] or []]
        matches = [(number(one["point"]), one) for one in row["matches"] or []]
        card["m"] = [[at, one["latent"], rounded(one["cosine"], 3)] for at, one in matches if at is not None]
    return card


def _index(rows: pa.Table, examples: int) -> Row:
    """What is searched: the different tokens, and for each latent those of its examples and those that it raises."""
    known: dict[str, int] = {}

    def numbers(found: Sequence[Row] | None) -> list[int]:
        return [known.setdefault(one["token"], len(known)) for one in found or []]

    shown, raised = [], []
    for batch in rows.select(["examples", "promoted"]).to_batches(PER_BLOCK):
        for row in batch.to_pylist():
            shown.append(numbers((row["examples"] or [])[:examples]))
            raised.append(numbers(row["promoted"]))
    frequencies = [rounded(value, 2) for value in rows["frequency"].to_pylist()]
    return {"examples": shown, "promoted": raised, "frequency": frequencies, "tokens": list(known)}
