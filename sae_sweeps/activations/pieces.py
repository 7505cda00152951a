"""Cuts a large document into pieces for the tokenizer, whose tokens together are exactly those of the whole.

A tokenizer takes more than a hundred bytes of memory per character. A document is cut where no token can reach across:
before a blank or line break that follows a letter or digit, or after a line break before one. Whether that holds for a
tokenizer is found in its vocabulary, and checked again at every cut. A document without such a place stays whole.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

LARGE = 2**18  # characters of the shortest document that is cut
PIECE = 2**17  # characters of a piece, at least
CHECKED = 100  # characters on both sides of a cut whose tokens are compared
TRIES = 100  # places at which a cut is tried


class Piece(NamedTuple):
    """A piece of a document, or a whole one.

    text: what to tokenize
    skip: number of first tokens that stand for text before the piece, and are dropped
    is_last: whether the document ends here
    """

    text: str
    skip: int = 0
    is_last: bool = True


Cut = Callable[[str], Iterator[Piece]]


def cut_nothing(text: str) -> Iterator[Piece]:
    """Yield the document as one piece."""
    yield Piece(text)


class Break(NamedTuple):
    """A kind of place at which a document may be cut.

    place: matches the character before a cut, if the text after it is right
    crossing: matches a token that would reach across
    before: stands for the text before a piece, so that the tokenizer does not take it for the begin of a document
    example: a text with such a place
    """

    place: re.Pattern[str]
    crossing: re.Pattern[str]
    before: str
    example: str


# U+FFFD: bytes of a letter whose other bytes are in another token
BREAKS = (
    Break(re.compile(r"[^\W_](?= )"), re.compile("(?:[^\\W_]|\ufffd) "), "x", "x x"),
    Break(re.compile(r"[^\W_](?=\n)"), re.compile("(?:[^\\W_]|\ufffd)\n"), "x", "x\nx"),
    Break(re.compile(r"\S\n(?=[^\W_])"), re.compile("\n(?:[^\\W_]|\ufffd)"), "x\n", "x\nx"),
)


@dataclass(frozen=True)
class Cutter:
    """Cuts documents for one tokenizer."""

    encode: Callable[[list[str]], list[list[int]]]
    breaks: list[tuple[Break, int]]  # kinds of places that are exact, each with the number of tokens of `before`

    def __call__(self, text: str) -> Iterator[Piece]:
        """Yield the pieces of a document, in order. A document that is not large, or cannot be cut, is one piece."""
        start, before, skip = 0, "", 0
        while len(text) - start >= LARGE and (found := self._find(text, start + PIECE)) is not None:
            end, (kind, tokens) = found
            yield Piece(before + text[start:end], skip, is_last=False)
            start, before, skip = end, kind.before, tokens
        yield Piece(before + text[start:], skip)

    def _find(self, text: str, first: int) -> tuple[int, tuple[Break, int]] | None:
        """Return the first index at which the text can be cut, and the kind of place there; None if there is none."""
        for kind, tokens in self.breaks:
            for match in islice(kind.place.finditer(text, first), TRIES):
                if self._is_exact(text, match.end(), kind, tokens):
                    return match.end(), (kind, tokens)
        return None

    def _is_exact(self, text: str, at: int, kind: Break, tokens: int) -> bool:
        """Return whether `CHECKED` characters on both sides of a cut have the tokens of the uncut text."""
        left, right = text[max(0, at - CHECKED) : at], text[at : at + CHECKED]
        whole, first, second = self.encode([left + right, left, kind.before + right])
        return whole == first + second[tokens:]


def make_cutter(tokenizer: Any, encode: Callable[[list[str]], list[list[int]]]) -> Cut:
    """Return what cuts large documents for a Hugging Face tokenizer; `cut_nothing` if its tokens may reach anywhere.

    encode: returns the token ids of each text, without special tokens
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return cut_nothing
    if type(backend.model).__name__ == "Unigram":  # its best path through a whole text depends on all of it
        splitter = backend.pre_tokenizer
        if splitter is None or len(splitter.pre_tokenize_str("x x")) < 2:
            return cut_nothing
    spell = _make_speller(backend)
    vocabulary = [spell(token) for token in tokenizer.get_vocab()]
    breaks = []
    for kind in BREAKS:
        ids, before = encode([kind.example, kind.before])
        is_spelled = kind.example in "".join(map(spell, tokenizer.convert_ids_to_tokens(ids)))
        if is_spelled and not any(map(kind.crossing.search, vocabulary)):
            breaks.append((kind, len(before)))
    return Cutter(encode, breaks) if breaks else cut_nothing


def _make_speller(backend: Any) -> Callable[[str], str]:
    """Return a function from a token of the vocabulary to its text. Bytes that are no character become U+FFFD."""
    if "ByteLevel" not in repr(backend.decoder):
        bytes_of = {f"<0x{value:02X}>": chr(value) for value in range(128)}
        return lambda token: bytes_of.get(token, token.replace("\u2581", " "))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes whose sign is the character of this code
    others = [value for value in range(256) if value not in printable]  # the others have the signs from U+0100 on
    byte_of = {chr(value): value for value in printable} | {chr(256 + n): value for n, value in enumerate(others)}

    def spell(token: str) -> str:
        data = b"".join(bytes([byte_of[sign]]) if sign in byte_of else sign.encode() for sign in token)
        return data.decode("utf-8", "replace")

    return spell
