"""Blocked encoder matmul: the dense (B, F) matrix of pre-activations is never materialised."""

# B activations in a batch, R of them in a block, D model width, F latents, M chosen latents, N kept entries, K entries
# kept in each row

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import RowSparse

BLOCK = 2**23  # entries of the product in one block, so that a block stays about in the cache while it is searched
BLOCK_CUDA = 2**27  # the same number on a GPU
SPARE = 8  # an approximate product proposes 1 / SPARE more entries than are kept
ROUNDING = 2**-6  # several times a bfloat16 product's error, relative to |input| * |weights| / sqrt(D)

OnBlock = Callable[[int, Tensor], None]  # is called with (index of the block's first row, pre-activations pre_RM)


class Product:
    """The pre-activations input @ W_enc^T + b_enc, (B, F), with only one block of rows in memory at a time.

    With a `precision` of "tf32" or "bfloat16" the blocks are approximate and only propose entries to keep: `exact`
    recomputes the kept entries in float32.
    """

    def __init__(
        self, input_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor | None = None, *, precision: str = "float32"
    ) -> None:
        self.input_BD, self._W_enc_FD, self.b_enc_F = input_BD, W_enc_FD, b_enc_F
        self._precision = precision
        self.shape = (input_BD.shape[0], W_enc_FD.shape[0])
        self._callbacks: list[tuple[Tensor, OnBlock]] = []

    @property
    def is_exact(self) -> bool:
        """Return whether blocks are computed in float32; otherwise they only propose entries to keep."""
        return self._precision == "float32"

    @property
    def error_F(self) -> Tensor:
        """Return an upper bound on the rounding error of each latent's pre-activations in a block, (F,)."""
        if self.is_exact:
            return self._W_enc_FD.new_zeros(self.shape[1])
        largest = self.input_BD.norm(dim=1).max() / self.input_BD.shape[1] ** 0.5
        return ROUNDING * largest * self._W_enc_FD.norm(dim=1)

    def add_callback(self, latents_M: Tensor, on_block: OnBlock) -> None:
        """Register `on_block` to be called for every block while `blocks` runs.

        The arguments are the index of the block's first row and the pre-activations (R, M) of the latents `latents_M`,
        without the bias.
        """
        self._callbacks.append((latents_M, on_block))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each block: the index of the block's first row, and the pre-activations (R, F) without the bias.

        The next block overwrites the memory of these pre-activations.
        """
        batch, dict_size = self.shape
        input_BD, W_enc_FD = self.input_BD, self._W_enc_FD
        if self._precision == "bfloat16":
            input_BD, W_enc_FD = input_BD.bfloat16(), W_enc_FD.bfloat16()
        rows = max(1, min(batch, (BLOCK_CUDA if input_BD.is_cuda else BLOCK) // dict_size))
        block_RF = input_BD.new_empty(rows, dict_size)
        for first in range(0, batch, rows):
            chunk_RD = input_BD[first : first + rows]
            pre_RF = block_RF[: len(chunk_RD)]
            with _tensor_cores(self._precision == "tf32"):
                torch.mm(chunk_RD, W_enc_FD.T, out=pre_RF)
            for latents_M, on_block in self._callbacks:
                on_block(first, pre_RF.gather(1, latents_M.expand(len(chunk_RD), -1)))
            yield first, pre_RF

    def exact(self, kept: RowSparse, latents_M: Tensor | None = None) -> Tensor:
        """Compute the pre-activations of the kept entries in float32 with the bias, (N,).

        `kept.pre` holds the values from the blocks. With `latents_M`, column j of `kept` stands for latent
        `latents_M[j]`.
        """
        pre_N = kept.pre
        if not self.is_exact:
            W_enc_FD = self._W_enc_FD if latents_M is None else self._W_enc_FD[latents_M]
            pre_N = kept.sample_product(self.input_BD, W_enc_FD)
        if self.b_enc_F is None:
            return pre_N
        return pre_N + kept.gather(self.b_enc_F if latents_M is None else self.b_enc_F[latents_M])

    def to_dense(self) -> Tensor:
        """Compute the whole matrix of pre-activations in float32 with the bias, (B, F)."""
        pre_BF = self.input_BD @ self._W_enc_FD.T
        return pre_BF if self.b_enc_F is None else pre_BF.add_(self.b_enc_F)


class RowTopK:
    """A search for the k largest pre-activations of each row, block by block."""

    def __init__(self, product: Product, k: int, latents_M: Tensor | None = None) -> None:
        """Prepare to search all columns, or only the latents `latents_M` (M,).

        With `latents_M`, a callback on `product` passes the blocks on; otherwise the caller gives each to `add_block`.
        """
        self._product, self._latents_M = product, latents_M
        self._width = product.shape[1] if latents_M is None else len(latents_M)
        self._k = min(k, self._width)
        # an approximate product proposes a few more entries than are kept
        self._proposed = self._k if product.is_exact else min(self._k + self._k // SPARE + 1, self._width)
        self._tops: dict[int, tuple[Tensor, Tensor]] = {}
        self._bias_M = product.b_enc_F
        if latents_M is not None:
            self._bias_M = None if self._bias_M is None else self._bias_M[latents_M]
            product.add_callback(latents_M, self.add_block)

    def add_block(self, first: int, pre_RF: Tensor) -> None:
        """Find the largest entries in each row of a block (R, F); `first` is the index of the block's first row."""
        if self._proposed == self._width:
            col_F = torch.arange(self._width, device=pre_RF.device)
            self._tops[first] = pre_RF.clone(), col_F.expand_as(pre_RF)
        else:
            # the blocks have no bias; `exact` adds it to the chosen entries
            biased_RF = pre_RF if self._bias_M is None else pre_RF + self._bias_M
            col_RK = biased_RF.topk(self._proposed, dim=1, sorted=False).indices
            self._tops[first] = pre_RF.gather(1, col_RK), col_RK

    def collect(self) -> RowSparse:
        """Return the k largest entries of each row as sparse entries, with 0 in place of negative values.

        The matrix is (B, F), or (B, M) if only the latents `latents_M` were searched.
        """
        pre_BK, col_BK = (torch.cat(parts) for parts in zip(*self._tops.values(), strict=True))
        proposed = RowSparse.from_rows(col_BK, pre_BK, self._width)
        pre_BK = self._product.exact(proposed, self._latents_M).view_as(col_BK)
        if self._proposed > self._k:
            pre_BK, index_BK = pre_BK.topk(self._k, dim=1, sorted=False)
            col_BK = col_BK.gather(1, index_BK)
        return RowSparse.from_rows(col_BK, pre_BK.relu(), self._width)


def keep_top_per_row(product: Product, k: int) -> RowSparse:
    """Return the k largest pre-activations of each row (B, F) as sparse entries, with 0 in place of negative values."""
    top = RowTopK(product, k)
    for first, pre_RF in product.blocks():
        top.add_block(first, pre_RF)
    return top.collect()


def keep_above(product: Product, floor_F: Tensor, at_most: float = 1.0) -> RowSparse | None:
    """Return the pre-activations that are positive and above the latent's value in `floor_F`, as sparse entries (B, F).

    Returns None if more than the share `at_most` of the first block's entries are above: a dense matrix is then faster.
    """
    dict_size = product.shape[1]
    bias_F = torch.zeros_like(floor_F) if product.b_enc_F is None else product.b_enc_F
    floor_F = floor_F.clamp(min=0)
    # the blocks have no bias, and may be rounded: propose a few more entries than are kept
    slack_F = 8 * torch.finfo(floor_F.dtype).eps * (floor_F + bias_F.abs()) + product.error_F
    proposed_F = floor_F - bias_F - slack_F
    flats: list[Tensor] = []
    pres: list[Tensor] = []
    for first, pre_RF in product.blocks():
        flat_N = (pre_RF > proposed_F).view(-1).nonzero().squeeze(1)
        if first == 0 and len(flat_N) > at_most * pre_RF.numel():
            return None
        pres.append(pre_RF.view(-1)[flat_N])
        flats.append(flat_N.add_(first * dict_size))
    flat_N = torch.cat(flats)
    proposed = RowSparse.from_flat(flat_N, torch.cat(pres), product.shape)
    pre_N = product.exact(proposed)
    kept_N = pre_N > proposed.gather(floor_F)
    return RowSparse.from_flat(flat_N[kept_N], pre_N[kept_N], product.shape)


@contextmanager
def _tensor_cores(on: bool) -> Iterator[None]:
    """Allow or forbid, within the context, that float32 products on CUDA round both factors to TF32."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if on else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
