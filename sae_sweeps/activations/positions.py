"""The positions of token sequences that are data. All others are left out of training, evaluation and studies alike.

A position is left out if its token is one of `dataset.exclude`, wherever it stands, or if it is the BOS that
`dataset.prepend_bos` puts first. The activations at such tokens say little about the text, and in many models are
enormous: a separator that is also the BOS token is an attention sink in the middle of a sequence as well.
"""

# N sequences, S positions in a sequence

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError


@dataclass(frozen=True)
class Positions:
    """The rule by which positions are left out.

    excluded: ids of the tokens whose positions are left out
    first: the first position that can be data: 1 if sequences start with a BOS, else 0
    """

    excluded: tuple[int, ...] = ()
    first: int = 0

    @classmethod
    def from_settings(cls, dataset: DatasetConfig, tokenizer: Any, known: Collection[int | None] = ()) -> "Positions":
        """Return the rule of a data set's settings.

        known: ids of the model's BOS and end-of-text tokens, which are special too; None for a token it does not have
        Raises: ConfigError if `dataset.exclude` names a token that the tokenizer does not have.
        """
        if dataset.exclude == "special":
            special = _find_special_ids(tokenizer) | {token for token in known if token is not None}
            return cls(tuple(sorted(special)), dataset.first_position)
        ids = {_find_id(token, dataset.exclude, tokenizer) for token in dataset.excluded_tokens}
        return cls(tuple(sorted(ids)), dataset.first_position)

    def find(self, tokens_NS: Tensor) -> Tensor:
        """Return which positions of token sequences (N, S) are data, bool (N, S)."""
        is_data_NS = torch.isin(tokens_NS, torch.tensor(self.excluded, dtype=tokens_NS.dtype), invert=True)
        is_data_NS[:, : self.first] = False
        return is_data_NS

    def count_left_out(self, tokens_NS: Tensor) -> int:
        """Return how many positions of token sequences (N, S) are left out, besides the prepended BOS."""
        return int(tokens_NS[:, self.first :].numel() - self.find(tokens_NS).sum())

    def require_some(self, tokens_NS: Tensor, setting: Any) -> None:
        """Check that token sequences (N, S) have data. `setting`: the value of dataset.exclude, for the message.

        Raises: ConfigError if every position is left out.
        """
        if not self.find(tokens_NS).any():
            problem = f"leaves out every position of {len(tokens_NS)} sequences, so that there are no activations"
            raise ConfigError("dataset.exclude", setting, problem, "exclude fewer tokens, or check the text")


def _find_special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of the tokenizer's special tokens, but for a token that only stands for unknown text."""
    roles = {role: token for role, token in tokenizer.special_tokens_map.items() if role != "unk_token"}
    tokens: set[str] = set()
    for token in roles.values():
        tokens |= {token} if isinstance(token, str) else set(token)
    only_unknown = {tokenizer.unk_token_id} - set(tokenizer.convert_tokens_to_ids(sorted(tokens)))
    return set(tokenizer.all_special_ids) - only_unknown


def _find_id(token: int | str, setting: Any, tokenizer: Any) -> int:
    """Return the id of a token that is given as an id, as its entry in the vocabulary, or as text of one token.

    Raises: ConfigError if the tokenizer does not have it.
    """
    vocabulary = tokenizer.get_vocab()
    if isinstance(token, int):
        if 0 <= token < len(tokenizer):
            return token
        problem = f"the tokenizer has no token {token}: its ids go from 0 to {len(tokenizer) - 1}"
        raise ConfigError("dataset.exclude", setting, problem, "give ids in this range, or special or none")
    if token in vocabulary:
        return int(vocabulary[token])
    ids: Sequence[int] = tokenizer(token, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) == 1:
        return ids[0]
    problem = f"{token!r} is not one token of the tokenizer, but {len(ids)}"
    raise ConfigError("dataset.exclude", setting, problem, "give special, none, entries of the vocabulary or ids")
