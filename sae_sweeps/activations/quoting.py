"""Quotes tokens as text: a token in its context, as slices of one decoded text, and the text of a single token.

Tokens are never decoded apart: SentencePiece tokenizers drop the blank before the first token of what they decode, and
a character may be spread over several tokens.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

REACH = 4  # tokens around a context that are decoded too: a character has at most 4 bytes, so it ends within them
HALF = "\ufffd"  # what the decoder writes for bytes that are no whole character


class Window(NamedTuple):
    """The tokens around an example. `ids` is a part of one document; the other numbers are indices into `ids`.

    begin, at, end: the first token of the context, the token itself, and the index after the last token of the context
    is_start, is_end: whether `ids` starts or ends where the sequence or the document does, maybe within a character
    """

    ids: list[int]
    begin: int
    at: int
    end: int
    is_start: bool
    is_end: bool


def find_window(
    sequence: Sequence[int], at: int, first: int, before: int, after: int, separators: Collection[int | None]
) -> Window:
    """Return the tokens around the token at index `at` of a sequence. The context ends where its document does.

    first: index of the first token of the sequence that is text
    before, after: number of tokens of context
    separators: ids of tokens that stand between documents
    """
    start = next((n + 1 for n in range(at - 1, first - 1, -1) if sequence[n] in separators), min(first, at))
    if sequence[at] in separators:
        stop = at + 1
    else:
        stop = next((n for n in range(at + 1, len(sequence)) if sequence[n] in separators), len(sequence))
    begin, end = max(start, at - before), min(stop, at + 1 + after)
    left, right = max(start, begin - REACH), min(stop, end + REACH)
    ids = list(sequence[left:right])
    return Window(ids, begin - left, at - left, end - left, begin == start, end == stop)


def quote(tokenizer: Any, windows: Sequence[Window]) -> list[tuple[str, str, str]]:
    """Return for each window the text before the token, the token and the text after it.

    The three together are a part of the decoded text. A token that is a part of a character is shown as the character.
    """
    parts: list[list[int]] = []
    for ids, begin, at, end, *_ in windows:
        parts += [ids, ids[:begin], ids[:at], ids[: at + 1], ids[:end]]
    texts = iter(tokenizer.batch_decode(parts, clean_up_tokenization_spaces=False))
    quotes = []
    for window in windows:
        text = next(texts)
        (begin, _), (start, _), (whole, is_whole), (end, _) = (_find_end(text, next(texts)) for _ in range(4))
        stop = whole if is_whole else whole + 1
        before, token, after = text[begin:start], text[start:stop], text[stop : max(stop, end)]
        if window.is_start:  # the first bytes may be the end of a character that another sequence has
            before, token = before.lstrip(HALF), token if before else token.lstrip(HALF) or token
        if window.is_end:
            after, token = after.rstrip(HALF), token if after else token.rstrip(HALF) or token
        quotes.append((before, token, after))
    return quotes


def _find_end(text: str, part: str) -> tuple[int, bool]:
    """Return how many characters of `text` the decoded first tokens hold in full, and whether they end with the last.

    part: the text of the first tokens alone, whose last character may be half of one in `text`
    """
    if text.startswith(part):
        return len(part), True
    whole = part.rstrip(HALF)
    while not text.startswith(whole):
        whole = whole[:-1]
    return len(whole), False


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
