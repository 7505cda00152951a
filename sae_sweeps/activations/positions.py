"""The positions of token sequences that are data. All others are left out of training, evaluation and studies alike.

A position is left out if its token is one of `dataset.exclude`, wherever it stands, or if it is the BOS that
`dataset.prepend_bos` puts first. The activations at such tokens say little about the text, and in many models are
enormous: a separator that is also the BOS token is an attention sink in the middle of a sequence as well.
"""

# N sequences, S positions in a sequence

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.excluded import find_special_ids, find_token_id
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError


@dataclass(frozen=True)
class Positions:
    """The rule by which positions are left out.

    excluded: ids of the tokens whose positions are left out
    first: the first position that can be data: 1 if sequences start with a BOS, else 0
    special: ids of the special tokens, which hold no text, whether or not they are left out
    """

    excluded: tuple[int, ...] = ()
    first: int = 0
    special: tuple[int, ...] = ()

    @classmethod
    def from_settings(cls, dataset: DatasetConfig, tokenizer: Any, known: Collection[int | None] = ()) -> "Positions":
        """Return the rule of a data set's settings.

        known: ids of the model's BOS and end-of-text tokens, which are special too; None for a token it does not have
        Raises: ConfigError if `dataset.exclude` names a token that the tokenizer does not have.
        """
        special = tuple(sorted(find_special_ids(tokenizer) | {token for token in known if token is not None}))
        if dataset.exclude == "special":
            return cls(special, dataset.first_position, special)

        def encode(text: str) -> list[int]:
            return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

        named, vocabulary = dataset.excluded_tokens, tokenizer.get_vocab()
        ids = {find_token_id(token, dataset.exclude, vocabulary, encode) for token in named}
        return cls(tuple(sorted(ids)), dataset.first_position, special)

    def find(self, tokens_NS: Tensor) -> Tensor:
        """Return which positions of token sequences (N, S) are data, bool (N, S)."""
        is_data_NS = torch.isin(tokens_NS, torch.tensor(self.excluded, dtype=tokens_NS.dtype), invert=True)
        is_data_NS[:, : self.first] = False
        return is_data_NS

    def find_special(self, tokens_NS: Tensor) -> Tensor:
        """Return which positions of token sequences (N, S) hold a special token, bool (N, S)."""
        is_special_NS = torch.isin(tokens_NS, torch.tensor(self.special, dtype=tokens_NS.dtype))
        is_special_NS[:, : self.first] = True
        return is_special_NS

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
