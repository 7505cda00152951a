"""The meaning of latents as table rows: the tokens that activate a latent most, in context, and promoted tokens."""

# N sequences read, n of them in a batch, S tokens of a sequence, B activations (one per token), D model width
# F latents, E examples per latent

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from sae_sweeps.activations.quoting import Quoter, decode_each
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.saes import SAE
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.top_activations import TopActivations

log = logging.getLogger(__name__)

Row = dict[str, Any]
Pairs = list[tuple[int, float]]  # id and logit of tokens

ROWS = 2048  # latents per part of a table; one part is in memory at a time
LOGIT_BINS = 40

CONTEXT = [("before", pa.string()), ("token", pa.string()), ("after", pa.string())]
# characters `start` to `stop` - 1 of an example's before + token + after, on which the latent is active
ACTIVE = pa.struct([("start", pa.int32()), ("stop", pa.int32()), ("activation", pa.float32())])
CUTS = pa.list_(pa.int32())  # where a token of before + token + after begins, but for the first one
EXAMPLE = pa.struct(
    [("activation", pa.float32()), *CONTEXT, ("place", pa.int64()), ("active", pa.list_(ACTIVE)), ("cuts", CUTS)]
)  # place: see TopActivations
PROMOTED = pa.struct([("token", pa.string()), ("logit", pa.float32())])
HISTOGRAM = pa.struct([("width", pa.float32()), ("counts", pa.list_(pa.int32()))])  # bins of one width from 0
# of a latent's logits: bins of one width, the first from `low`, the last up to the largest
LOGITS = pa.struct([("low", pa.float32()), ("width", pa.float32()), ("counts", pa.list_(pa.int32()))])
SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("frequency", pa.float32()),  # share of the held-out tokens on which the latent is active
        ("mean_activation", pa.float32()),  # mean over the tokens on which the latent is active
        ("max_activation", pa.float32()),
        ("examples", pa.list_(EXAMPLE)),  # strongest first, each from another sequence
        ("promoted", pa.list_(PROMOTED)),  # output tokens with the largest logit-lens value
        ("suppressed", pa.list_(PROMOTED)),  # output tokens with the smallest logit-lens value, the smallest first
        ("histogram", HISTOGRAM),  # of the magnitudes of the latent's activations, see MagnitudeHistograms
        ("logits", LOGITS),  # of the logit-lens values of all output tokens
    ]
)


def collect_top_activations(
    source: ActivationSource,
    sae: SAE,
    settings: Mapping[str, Any],
    display: PointProgress,
    transform: Callable[[RowSparse], RowSparse] | None = None,
) -> tuple[TopActivations, Tensor]:
    """Collect the strongest activations of every latent, and the tokens read, (N, S), in one pass over held-out text.

    settings: the settings `latents.*`, by name
    transform: maps the latent activations (B, F) to those of other latents (B, M), such as meta-latents, which are
        collected instead; None: no change

    Raises: Stopped on a stop signal.
    """
    read: list[Tensor] = []
    top: TopActivations | None = None

    for tokens_nS, x_BD in source.held_out_text(settings["tokens"], progress_callback(display, "sequences")):
        sequences, seq_len = tokens_nS.shape
        kept = sae.find_active(sae.normalize(x_BD))
        kept = kept if transform is None else transform(kept)
        if top is None:
            around = {name: settings[name] for name in ("before", "after")}
            top = TopActivations(kept.shape[1], settings["examples"], seq_len, x_BD.device, **around)
        first = sum(map(len, read)) * seq_len
        place_nS = torch.arange(first, first + sequences * seq_len, device=x_BD.device).view(sequences, seq_len)
        top.update(kept, place_nS[source.positions.find(tokens_nS).to(x_BD.device)])
        read.append(tokens_nS)
    assert top is not None, "held_out_text yields at least one batch, or raises an error"
    return top, torch.cat(read)


def build_rows(
    source: ActivationSource,
    top: TopActivations,
    tokens_NS: Tensor,
    W_dec_FD: Tensor,
    settings: Mapping[str, Any],
    display: PointProgress,
) -> Iterator[dict[str, Any]]:
    """Yield the columns of SCHEMA by name, for ROWS latents at a time. Raises: Stopped on a stop signal.

    top, tokens_NS: from `collect_top_activations`
    W_dec_FD: decoder directions of the latents
    settings: the settings `latents.*`, by name
    """
    quoter = Quoter(
        source.model.tokenizer,
        tokens_NS.tolist(),
        first=source.first_position,
        separators=(source.model.bos, source.model.eos),
        before=settings["before"],
        after=settings["after"],
    )
    for first in range(0, len(W_dec_FD), ROWS):
        signals.raise_if_stopped()
        latents = slice(first, min(first + ROWS, len(W_dec_FD)))
        yield {
            "latent": list(range(latents.start, latents.stop)),
            "frequency": top.frequency[latents].tolist(),
            "mean_activation": top.mean[latents].tolist(),
            "max_activation": top.value[latents, 0].tolist(),
            "examples": _quote_examples(top, latents, quoter, settings["before"]),
            "histogram": _list_histograms(top, latents),
            **find_output_tokens(source, W_dec_FD[latents], settings["promoted"]),
        }
        display.show_count(latents.stop, len(W_dec_FD), "latents written")


def _quote_examples(top: TopActivations, latents: slice, quoter: Quoter, before: int) -> list[list[Row]]:
    """Return for each latent of `latents` a list of its strongest activations, each with token and context as text.

    before: number of tokens before an example in `top.around`
    """
    quoted = []
    found = (top.value[latents].tolist(), top.place[latents].tolist(), top.around[latents].tolist())
    for value_E, place_E, around_EW in zip(*found, strict=True):
        examples = []
        for value, place, around_W in zip(value_E, place_E, around_EW, strict=True):
            if place >= 0:
                texts = dict(zip(("before", "token", "after"), quoter.quote(place), strict=True))
                active_at = [(at - before, one) for at, one in enumerate(around_W) if one != 0]
                located = quoter.locate(place)
                active = [
                    {"start": located[at][0], "stop": located[at][1], "activation": one}
                    for at, one in active_at
                    if at in located
                ]
                cuts = list_cuts(located.values())
                examples.append({"activation": value, **texts, "place": place, "active": active, "cuts": cuts})
        quoted.append(examples)
    return quoted


def _list_histograms(top: TopActivations, latents: slice) -> list[Row]:
    """Return the histogram of each latent of `latents`, without the empty bins at the end."""
    widths, counts = top.histograms.width[latents].tolist(), top.histograms.count[latents].tolist()
    used = [max((at + 1 for at, count in enumerate(one) if count), default=0) for one in counts]
    return [{"width": width, "counts": one[:last]} for width, one, last in zip(widths, counts, used, strict=True)]


def list_cuts(located: Iterable[tuple[int, int]]) -> list[int]:
    """Return where the tokens of a text begin, but for the first one: characters, in ascending order.

    located: where each token starts and stops in the text. Tokens that are parts of one character overlap, and count as
        one token.
    """
    cuts, stop = [], 0
    for start, end in sorted(located):
        if start >= stop > 0:
            cuts.append(start)
        stop = max(stop, end)
    return cuts


def find_output_tokens(source: ActivationSource, directions_ND: Tensor, count: int) -> dict[str, list[Any]]:
    """Return for each of N directions the `count` output tokens with the largest, and with the smallest logits.

    The logit is the logit-lens value. `promoted` and `suppressed` are lists of tokens, dicts of the text (`token`) and
    the `logit`, the most extreme one first; `logits` is the histogram of all logits. All are empty, with a warning, for
    a model whose output cannot be computed from a direction.
    """
    try:
        return _find_output_tokens(source, directions_ND, count)
    except ConfigError as error:
        log.warning("the tokens that latents promote are left out: %s", error)
        nothing: list[Any] = [[] for _ in directions_ND]
        return {"promoted": nothing, "suppressed": nothing, "logits": [None] * len(directions_ND)}


def _find_output_tokens(source: ActivationSource, directions_ND: Tensor, count: int) -> dict[str, list[Any]]:
    tokenizer = source.model.tokenizer
    found: dict[str, list[Pairs]] = {"promoted": [], "suppressed": []}
    histograms: list[Row] = []
    for part_ND in directions_ND.detach().split(source.model.logits_at_once):
        logits_NV = source.model.logit_lens(part_ND)[:, : len(tokenizer)]  # the rest is padding
        histograms += count_logits(logits_NV)
        for pairs, largest in zip(found.values(), (True, False), strict=True):
            logits, ids = logits_NV.topk(min(count, logits_NV.shape[1]), dim=1, largest=largest)
            pairs += [list(zip(*row, strict=True)) for row in zip(ids.tolist(), logits.tolist(), strict=True)]
    known = sorted({token for pairs in found.values() for row in pairs for token, _ in row})
    texts = dict(zip(known, decode_each(tokenizer, source.model.encode, known), strict=True))
    tokens = {
        name: [[{"token": texts[token], "logit": logit} for token, logit in row] for row in pairs]
        for name, pairs in found.items()
    }
    return {**tokens, "logits": histograms}


def count_logits(logits_NV: Tensor) -> list[Row]:
    """Return a histogram of each row: LOGIT_BINS bins of one width from the smallest value to the largest.

    A row of equal values has one bin, of width 0.
    """
    low_N1, high_N1 = logits_NV.amin(1, keepdim=True), logits_NV.amax(1, keepdim=True)
    width_N1 = (high_N1 - low_N1) / LOGIT_BINS
    bin_NV = ((logits_NV - low_N1) / width_N1.clamp(min=torch.finfo(width_N1.dtype).tiny)).int()
    bin_NV = bin_NV.clamp_(max=LOGIT_BINS - 1).add_(LOGIT_BINS * torch.arange(len(bin_NV)).to(bin_NV).unsqueeze(1))
    counts = bin_NV.flatten().bincount(minlength=LOGIT_BINS * len(bin_NV)).view(-1, LOGIT_BINS).tolist()
    found = zip(low_N1.flatten().tolist(), width_N1.flatten().tolist(), counts, strict=True)
    return [{"low": low, "width": width, "counts": one if width else one[:1]} for low, width, one in found]
