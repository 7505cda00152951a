"""Quotes tokens as text: a token in its context, as slices of one decoded text, and the text of a single token.

Tokens are never decoded apart: SentencePiece tokenizers drop the blank before the first token of what they decode, and
a character may be spread over several tokens.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

STRETCH = 64  # tokens that are decoded together, besides the context around them
REACH = 4  # more tokens on both sides: a character has at most 4 bytes, so one that a side cuts ends within them
HALF = "\ufffd"  # what a tokenizer writes for bytes that are no whole character


class DecodedText:
    """The text of a stretch of tokens, and where each token is in it.

    A token that is a part of a character stands for the whole character. Tokens at the ends whose character is cut off
    have no text.
    """

    def __init__(self, tokenizer: Any, ids: Sequence[int]) -> None:
        first, last = _find_whole(tokenizer, ids)
        parts = tokenizer.batch_decode(
            [ids[first:end] for end in range(first, last + 1)], clean_up_tokenization_spaces=False
        )
        self.text = parts[-1]
        self._first, self._last = first, last
        # a character is complete after a token if the text up to there is the start of the whole text
        ends = [len(part) if self.text.startswith(part) else None for part in parts]
        whole = range(len(self.text) - len(self.text.lstrip(HALF)), len(self.text.rstrip(HALF)) + 1)
        self._start = _fill(ends[:-1], whole)
        self._stop = _fill(ends[:0:-1], whole)[::-1]

    def slice(self, begin: int, at: int, end: int) -> tuple[str, str, str]:
        """Return the text from token `begin` to before token `at`, of token `at`, and from there to before token `end`.

        The three together are a part of `text`. A token without text is shown as U+FFFD.
        """
        begin, at, end = max(begin - self._first, 0), at - self._first, min(end, self._last) - self._first
        if not begin <= at < end:
            return "", HALF, ""
        start, stop = self._start[at], self._stop[at]
        token = self.text[start:stop] or (HALF if self.text.strip(HALF) != self.text else "")
        return self.text[self._start[begin] : start], token, self.text[stop : self._stop[end - 1]]

    def locate(self, begin: int, at: int, end: int) -> dict[int, tuple[int, int]]:
        """Return for tokens `begin` to `end` - 1, counted from token `at`, where they start and stop in the quote.

        The quote is the three texts of `slice`, joined. Tokens without text are left out, and all if token `at` is one.
        """
        begin, at, end = max(begin - self._first, 0), at - self._first, min(end, self._last) - self._first
        if not begin <= at < end or self._start[at] == self._stop[at]:
            return {}
        first = self._start[begin]
        places = {token - at: (self._start[token] - first, self._stop[token] - first) for token in range(begin, end)}
        return {token: (start, stop) for token, (start, stop) in places.items() if start < stop}


def _fill(ends: Iterable[int | None], whole: range) -> list[int]:
    """Return numbers, each None replaced by the number before it, and all moved into a range."""
    filled, latest = [], 0
    for end in ends:
        latest = latest if end is None else end
        filled.append(max(whole.start, min(latest, whole.stop - 1)))
    return filled


def _find_whole(tokenizer: Any, ids: Sequence[int]) -> tuple[int, int]:
    """Return the range of `ids` without tokens at either end whose character is cut off there."""

    def decode(parts: list[Sequence[int]]) -> list[str]:
        texts: list[str] = tokenizer.batch_decode(parts, clean_up_tokenization_spaces=False)
        return texts

    drops = range(min(REACH, len(ids)))
    starts = decode([ids[drop:] for drop in drops])
    if starts and not starts[0].strip(HALF):
        return 0, 0  # parts of one character
    first = next((drop for drop in drops if not starts[drop].startswith(HALF)), 0)
    drops = range(min(REACH, len(ids) - first))
    ends = decode([ids[first : len(ids) - drop] for drop in drops])
    return first, len(ids) - next((drop for drop in drops if not ends[drop].endswith(HALF)), 0)


class Quoter:
    """Quotes tokens of sequences in their context, which ends where the token's document does."""

    def __init__(
        self,
        tokenizer: Any,
        sequences: Sequence[Sequence[int]],
        *,
        first: int,
        separators: Collection[int | None],
        before: int,
        after: int,
    ) -> None:
        """Prepare quotes. Nothing is decoded yet.

        sequences: token ids, all of one length
        first: index of the first token of a sequence that is text
        separators: ids of tokens that stand between documents
        before, after: number of tokens of context
        """
        self._tokenizer, self._sequences, self._first, self._separators = tokenizer, sequences, first, separators
        self._before, self._after = before, after
        self._decoded: dict[tuple[int, int, int], DecodedText] = {}

    def quote(self, place: int) -> tuple[str, str, str]:
        """Return the text before a token, the token and the text after it: slices of one decoded text.

        place: index of the token in the concatenated sequences
        """
        decoded, *tokens = self._find(place)
        return decoded.slice(*tokens)

    def locate(self, place: int) -> dict[int, tuple[int, int]]:
        """Return where the tokens of the quote of a token start and stop in it: its three texts, joined.

        The keys are the tokens' distances from the quoted one, whose key is 0. Tokens without text are left out.
        """
        decoded, *tokens = self._find(place)
        return decoded.locate(*tokens)

    def _find(self, place: int) -> tuple[DecodedText, int, int, int]:
        """Return the text around a token, and in it the first token of its quote, the token, and the end of the quote.

        place: index of the token in the concatenated sequences
        """
        number, at = divmod(place, len(self._sequences[0]))
        start, stop = self._find_document(number, at)
        stretch = start + (at - start) // STRETCH * STRETCH
        left = max(start, stretch - self._before - REACH)
        right = min(stop, stretch + STRETCH + self._after + REACH)
        key = (number, left, right)
        if key not in self._decoded:
            self._decoded[key] = DecodedText(self._tokenizer, self._sequences[number][left:right])
        begin, end = max(start, at - self._before), min(stop, at + 1 + self._after)
        return self._decoded[key], begin - left, at - left, end - left

    def _find_document(self, number: int, at: int) -> tuple[int, int]:
        """Return the range of tokens in sequence `number` that belong to the document of the token at index `at`."""
        sequence = self._sequences[number]
        start = next((n + 1 for n in range(at - 1, self._first - 1, -1) if sequence[n] in self._separators), None)
        stop = next((n for n in range(at, len(sequence)) if sequence[n] in self._separators), len(sequence))
        return min(self._first, at) if start is None else start, max(stop, at + 1)


def decode_each(tokenizer: Any, encode: Callable[[list[str]], list[list[int]]], ids: Sequence[int]) -> list[str]:
    """Return the text of single tokens, each as it is after other text: with the blank that it may begin with.

    encode: returns the token ids of each text, without special tokens
    """
    (before,) = encode(["x"])
    parts = [before, *([*before, each] for each in ids), *([each] for each in ids)]
    shown, *texts = tokenizer.batch_decode(parts, clean_up_tokenization_spaces=False)
    return [
        after.removeprefix(shown) if after.startswith(shown) else alone
        for after, alone in zip(texts[: len(ids)], texts[len(ids) :], strict=True)
    ]
