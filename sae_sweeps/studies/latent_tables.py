"""From top activations to what a person reads: tokens with their context, and output tokens, as rows of a table."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.saes import SAE
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.top_activations import TopActivations

ROWS = 2048  # latents of a part of a table

CONTEXT = [("before", pa.string()), ("token", pa.string()), ("after", pa.string())]
EXAMPLE = pa.struct(
    [("activation", pa.float32()), *CONTEXT, ("place", pa.int64())]
)  # place: of the token, in all text read
PROMOTED = pa.struct([("token", pa.string()), ("logit", pa.float32())])
SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("frequency", pa.float32()),  # share of the activations on which it is active
        ("mean_activation", pa.float32()),  # where it is active
        ("max_activation", pa.float32()),
        ("examples", pa.list_(EXAMPLE)),  # the strongest first, each from another sequence
        ("promoted", pa.list_(PROMOTED)),  # output tokens that the decoder direction raises most
    ]
)


def collect_top_activations(
    source: ActivationSource,
    sae: SAE,
    settings: Mapping[str, Any],
    shown: PointProgress,
    of: Callable[[RowSparse], RowSparse] | None = None,
) -> tuple[TopActivations, Tensor]:
    """One pass over held-out text: the top activations of the SAE's latents, or of what `of` makes of them, and the
    tokens (N, S) that were read."""
    read: list[Tensor] = []
    top: TopActivations | None = None

    for tokens_nS, x_BD in source.held_out_text(settings["tokens"], progress_callback(shown, "sequences")):
        sequences, seq_len = tokens_nS.shape
        positions = len(x_BD) // sequences
        kept = sae.active(sae.normalize(x_BD))
        kept = kept if of is None else of(kept)
        if top is None:
            top = TopActivations(kept.shape[1], settings["examples"], seq_len, x_BD.device)
        first = sum(map(len, read)) * seq_len
        place_nS = torch.arange(first, first + sequences * seq_len, device=x_BD.device).view(sequences, seq_len)
        top.update(kept, place_nS[:, seq_len - positions :].flatten())
        read.append(tokens_nS)
    assert top is not None, "there is held-out text, or an error was raised"
    return top, torch.cat(read)


def build_rows(
    source: ActivationSource,
    top: TopActivations,
    tokens_NS: Tensor,
    W_dec_FD: Tensor,
    settings: Mapping[str, Any],
    shown: PointProgress,
) -> Iterator[dict[str, Any]]:
    """The columns of SCHEMA, some latents at a time."""
    tokenizer = source.model.tokenizer
    tokens = tokens_NS.tolist()
    seq_len = tokens_NS.shape[1]
    bos = source.first_position
    for first in range(0, len(W_dec_FD), ROWS):
        signals.raise_if_stopped()
        latents = slice(first, min(first + ROWS, len(W_dec_FD)))
        values, places = top.value[latents].tolist(), top.place[latents].tolist()
        spans: list[list[int]] = []
        for value_E, place_E in zip(values, places, strict=True):
            for value, place in zip(value_E, place_E, strict=True):
                if value > 0:
                    sequence, at = tokens[place // seq_len], place % seq_len
                    spans += [
                        sequence[max(bos, at - settings["before"]) : at],
                        sequence[at : at + 1],
                        sequence[at + 1 : at + 1 + settings["after"]],
                    ]
        texts = iter(tokenizer.batch_decode(spans, clean_up_tokenization_spaces=False))
        examples = [
            [
                {
                    "activation": value,
                    "before": next(texts),
                    "token": next(texts),
                    "after": next(texts),
                    "place": place,
                }
                for value, place in zip(value_E, place_E, strict=True)
                if value > 0
            ]
            for value_E, place_E in zip(values, places, strict=True)
        ]
        yield {
            "latent": list(range(latents.start, latents.stop)),
            "frequency": top.frequency[latents].tolist(),
            "mean_activation": top.mean[latents].tolist(),
            "max_activation": top.value[latents, 0].tolist(),
            "examples": examples,
            "promoted": find_promoted_tokens(source, W_dec_FD[latents], settings["promoted"]),
        }
        shown.waiting(latents.stop, len(W_dec_FD), "latents written")


def find_promoted_tokens(source: ActivationSource, directions_ND: Tensor, count: int) -> list[list[dict[str, Any]]]:
    """For each direction the output tokens that it raises most, through the final norm and the unembedding."""
    found: list[list[dict[str, Any]]] = []
    for some_ND in directions_ND.detach().split(source.model.logits_at_once):
        logits, ids = source.model.logit_lens(some_ND).topk(count, dim=1)
        words = source.model.tokenizer.batch_decode(ids.reshape(-1, 1).tolist(), clean_up_tokenization_spaces=False)
        texts = iter(words)
        found += [[{"token": next(texts), "logit": logit} for logit in row] for row in logits.tolist()]
    return found
