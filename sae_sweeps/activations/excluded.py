"""Finds the ids of the tokens that `dataset.exclude` names. Imports no torch, so that settings are checked first."""

from collections.abc import Callable, Mapping
from typing import Any

from sae_sweeps.runtime.errors import ConfigError


def find_special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of the tokenizer's special tokens, but for a token that only stands for unknown text."""
    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if role != "unk_token"}
    tokens: set[str] = set()
    for token in roles.values():
        tokens |= {token} if isinstance(token, str) else set(token)
    only_unknown = {tokenizer.unk_token_id} - set(tokenizer.convert_tokens_to_ids(sorted(tokens)))
    return set(tokenizer.all_special_ids) - only_unknown


def find_token_id(
    token: int | str, setting: Any, vocabulary: Mapping[str, int], encode: Callable[[str], list[int]]
) -> int:
    """Return the id of a token that is given as an id, as its entry in the vocabulary, or as text of one token.

    setting: the value of dataset.exclude, for the message
    encode: returns the token ids of a text, without special tokens
    Raises: ConfigError if the tokenizer does not have the token.
    """
    largest = max(vocabulary.values())
    if isinstance(token, int):
        if 0 <= token <= largest:
            return token
        problem = f"the tokenizer has no token {token}: its ids go from 0 to {largest}"
        raise ConfigError("dataset.exclude", setting, problem, "give ids in this range, or special or none")
    if token in vocabulary:
        return int(vocabulary[token])
    ids = encode(token)
    if len(ids) == 1:
        return ids[0]
    problem = f"{token!r} is not one token of the tokenizer, but {len(ids)}"
    raise ConfigError("dataset.exclude", setting, problem, "give special, none, entries of the vocabulary or ids")
