"""Short quotations of the examples of a latent, without what needs torch."""

from collections.abc import Mapping, Sequence
from typing import Any

WORDS_BEFORE = 2  # words quoted before a token


def quote_contexts(examples: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """Return at most `most` distinct tokens of a latent's examples, each after the two words before it."""
    quotes = [f"{' '.join(one['before'].split()[-WORDS_BEFORE:])} ⟦{one['token'].strip()}⟧" for one in examples]
    return list(dict.fromkeys(quotes))[:most]
