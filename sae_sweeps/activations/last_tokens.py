"""Activations of whole texts: those at the hook of each text's last token."""

# T texts, n of them in a batch, S positions, D model width

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sae_sweeps.activations.finite import require_finite
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.runtime.progress import OnProgress

ENCODED_AT_ONCE = 512  # texts
USUAL_LENGTH = 128  # tokens of a sequence in a forward pass, if all are as long as a pass is usually


def encode_ends(model: LanguageModel, texts: Sequence[str], bos: int | None, most: int) -> tuple[list[list[int]], int]:
    """Return the ids of the last tokens of each text, at most `most` with `bos` before them, and how many were cut."""
    first = [] if bos is None else [bos]
    ends: list[list[int]] = []
    cut = 0
    for at in range(0, len(texts), ENCODED_AT_ONCE):
        for ids in model.encode(list(texts[at : at + ENCODED_AT_ONCE])):
            kept = ids[-(most - len(first)) :]
            cut += len(kept) < len(ids)
            ends.append([*first, *kept])
    return ends, cut


def read_last(model: LanguageModel, ends: Sequence[list[int]], on_progress: OnProgress) -> Tensor:
    """Return the activations of the last of the token ids of each text, (T, D), in the dtype of a chunk, on the CPU.

    Texts of similar lengths are read together. Behind the shorter ones their last token is repeated: a decoder looks
    back only, so that what follows changes nothing. `on_progress` is called with the number of texts that are done.
    Raises: ConfigError if an activation is not finite.
    """
    found: list[Tensor] = []
    order = sorted(range(len(ends)), key=lambda text: len(ends[text]))
    for batch in _make_batches([len(ends[text]) for text in order], model):
        texts = [order[place] for place in batch]
        longest = max(len(ends[text]) for text in texts)
        tokens_nS = torch.tensor([[*ends[text], *[ends[text][-1]] * (longest - len(ends[text]))] for text in texts])
        last_n = torch.tensor([len(ends[text]) - 1 for text in texts])
        acts_nSD = model.activations_at(tokens_nS, [model.hook])[model.hook]
        found.append(acts_nSD[torch.arange(len(texts)), last_n.to(acts_nSD.device)].cpu())
        on_progress(batch.stop, len(ends))
    acts_TD = torch.empty(len(ends), found[0].shape[1], dtype=found[0].dtype)
    acts_TD[torch.tensor(order)] = torch.cat(found)
    require_finite(replace(model.config, hook=model.hook), acts_TD.float(), "activations of the last tokens")
    return acts_TD


def _make_batches(lengths: Sequence[int], model: LanguageModel) -> Iterator[range]:
    """Yield the numbers of the texts of each forward pass, of about as many tokens as one usually has.

    lengths: of the texts, in tokens, in rising order
    """
    tokens, first = model.sequences_per_pass(USUAL_LENGTH) * USUAL_LENGTH, 0
    for place, length in enumerate(lengths):
        if place > first and (place - first + 1) * length > tokens:
            yield range(first, place)
            first = place
    yield range(first, len(lengths))
