"""Token sequences from documents, for training and for evaluation."""

# N sequences, S positions in a sequence (dataset.seq_len)

import logging
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sae_sweeps.activations.documents import Encode, fill_sequences, read_split, too_short_error
from sae_sweeps.activations.pieces import Cut, cut_nothing
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.background import raise_if_cancelled
from sae_sweeps.runtime.progress import SECONDS_BETWEEN_LINES

log = logging.getLogger(__name__)

SECONDS_TO_FIRST_LINE = 3.0  # seconds of tokenizing until the log says how far it is

Row = npt.NDArray[np.int32]  # the token ids of one sequence


def _log_progress(rows: Iterator[list[int]]) -> Iterator[list[int]]:
    """Yield sequences unchanged, and log how much text is tokenized: after a few seconds, then at regular intervals."""
    logged, wait, tokens = time.monotonic(), SECONDS_TO_FIRST_LINE, 0
    for row in rows:
        yield row
        tokens += len(row)
        if time.monotonic() - logged >= wait:
            log.info("tokenized %s tokens of the text so far", f"{tokens:,}")
            logged, wait = time.monotonic(), SECONDS_BETWEEN_LINES


class HeldOutSequences(NamedTuple):
    """The token ids of held-out sequences, (N, S), and the number of the document of each position, (N, S).

    Documents are numbered in their order in the text. A BOS that starts a sequence is of the document that follows it.
    """

    tokens_NS: Tensor
    document_NS: Tensor


class TokenSource:
    """The token sequences of a data set, split into training and held-out ones.

    A finite data set is tokenized once; its training sequences are visited in a random order, drawn from `dataset.seed`
    for each epoch. A streamed data set is visited in its own order and never held in memory: to step back, for instance
    when a run resumes, it is read again from the beginning.
    """

    def __init__(
        self, dataset: DatasetConfig, encode: Encode, bos: int | None, eos: int | None, cut: Cut = cut_nothing
    ) -> None:
        """Prepare the sequences of a data set. Nothing is read yet. The parameters are those of `fill_sequences`."""
        self.dataset, self._encode, self._bos, self._eos, self._cut = dataset, encode, bos, eos, cut
        self._finite: Tensor | None = None
        self._finite_held_out: HeldOutSequences | None = None
        self._stream: Iterator[Row] = iter(())
        self._position = -1  # next sequence of the stream; -1 before the first read
        self._orders: dict[int, Tensor] = {}
        self._lock = threading.Lock()  # one thread at a time reads training sequences

    def _rows(self, held_out: bool, ends: list[int] | None = None) -> Iterator[Row]:
        documents, per_document = read_split(self.dataset, held_out), self.dataset.has_bos_per_document
        given = (self._encode, self._bos, self._eos, self.dataset.seq_len, self._cut)
        rows = fill_sequences(documents, *given, bos_per_document=per_document, ends=ends)
        if not self.dataset.streaming:
            rows = _log_progress(rows)
        for row in rows:
            raise_if_cancelled()
            yield np.array(row, dtype=np.int32)  # 4 bytes per token; a list takes ten times as much

    def held_out(self, count: int) -> HeldOutSequences:
        """Return up to `count` held-out sequences, with the document of each position.

        They are a random sample of a finite data set, the same in every call, or the first sequences of a stream.
        Raises: ConfigError if the held-out documents do not fill one sequence.
        """
        if self.dataset.streaming:
            return self._held_out_rows(count)
        if self._finite_held_out is None:
            self._finite_held_out = self._held_out_rows(None)
        tokens_NS, document_NS = self._finite_held_out
        order = torch.randperm(len(tokens_NS), generator=torch.Generator().manual_seed(0))[:count]
        return HeldOutSequences(tokens_NS[order], document_NS[order])

    def _held_out_rows(self, count: int | None) -> HeldOutSequences:
        ends: list[int] = []
        sequences = list(islice(self._rows(held_out=True, ends=ends), count))
        if not sequences:
            raise too_short_error(self.dataset, held_out=True)
        tokens_NS = torch.from_numpy(np.stack(sequences)).long()
        return HeldOutSequences(tokens_NS, self._number_documents(len(tokens_NS), ends))

    def _number_documents(self, count: int, ends: list[int]) -> Tensor:
        """Return the number of the document of each position of the first `count` sequences, (N, S).

        ends: numbers of joined tokens up to the end of each document, as `fill_sequences` gives them
        """
        first, length = self.dataset.first_position, self.dataset.seq_len
        place_S = (torch.arange(length) - first).clamp(min=0)
        place_NS = torch.arange(count)[:, None] * (length - first) + place_S  # in the joined tokens
        return torch.searchsorted(torch.tensor(ends, dtype=torch.int64), place_NS, right=True)

    def training(self, start: int, count: int) -> Tensor:
        """Return the token ids (count, S) of training sequences `start` to `start + count - 1`, numbered across epochs.

        Any thread may call this; several take turns.
        Raises: ConfigError if the training documents do not fill one sequence.
        """
        with self._lock:
            return self._streamed(start, count) if self.dataset.streaming else self._drawn(start, count)

    def _drawn(self, start: int, count: int) -> Tensor:
        if self._finite is None:
            rows = list(self._rows(held_out=False))
            if not rows:
                raise too_short_error(self.dataset, held_out=False)
            self._finite = torch.from_numpy(np.stack(rows))
            log.info("the training text has %d sequences of %d tokens", *self._finite.shape)
        size = len(self._finite)
        index_N = torch.tensor([self._order(at // size)[at % size] for at in range(start, start + count)])
        return self._finite[index_N].long()

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            assert self._finite is not None, "the text must be tokenized before an order of sequences is drawn"
            if epoch == 1:
                log.info(
                    "training needs more than the %d sequences of the text, and repeats them in another random order",
                    len(self._finite),
                )
            generator = torch.Generator().manual_seed(self.dataset.seed * 1_000_003 + epoch)
            latest = sorted(self._orders)[-1:]  # a chunk may span two epochs
            kept = {known: self._orders[known] for known in latest}
            self._orders = {**kept, epoch: torch.randperm(len(self._finite), generator=generator)}
        return self._orders[epoch]

    def _streamed(self, start: int, count: int) -> Tensor:
        position, self._position = self._position, -1  # a stream that fails below cannot be read on
        if position < 0 or start < position:
            self._stream, position = self._endless(), 0
        rows = list(islice(self._stream, start - position, start - position + count))
        self._position = start + count
        return torch.from_numpy(np.stack(rows)).long()

    def _endless(self) -> Iterator[Row]:
        while True:
            empty = True
            for row in self._rows(held_out=False):
                empty = False
                yield row
            if empty:
                raise too_short_error(self.dataset, held_out=False)
            log.info("the streamed text has ended; training reads it again from the beginning")
