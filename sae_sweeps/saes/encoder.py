"""The encoder's product, the one dense product of a training step, made and looked through block by block."""

# B activations in a batch, R of them in a block, D model width, F latents, M watched latents, N kept entries

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import RowSparse

BLOCK = 2**23  # entries of the product in one block: it is looked through while it is still in the cache, or nearly
BLOCK_CUDA = 2**27
SPARE = 8  # where the product is approximate, one entry in so many more is considered than is kept
ROUNDING = 2**-6  # several times the error of a product of bfloat16 numbers, as a share of its factors' norms

Look = Callable[[int, Tensor], None]


class Product:
    """input @ W_enc^T + b_enc, (B, F), of which no more than a block of rows is held at a time.

    With a `precision` other than float32 the blocks only propose entries: `exact` computes those that were kept anew.
    """

    def __init__(
        self, input_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor | None = None, *, precision: str = "float32"
    ) -> None:
        self.input_BD, self._W_enc_FD, self.b_enc_F = input_BD, W_enc_FD, b_enc_F
        self._precision = precision
        self.shape = (input_BD.shape[0], W_enc_FD.shape[0])
        self._watchers: list[tuple[Tensor, Look]] = []

    @property
    def is_exact(self) -> bool:
        return self._precision == "float32"

    @property
    def error_F(self) -> Tensor:
        """How far the blocks may be from the exact product, for each latent."""
        if self.is_exact:
            return self._W_enc_FD.new_zeros(self.shape[1])
        largest = self.input_BD.norm(dim=1).max() / self.input_BD.shape[1] ** 0.5
        return ROUNDING * largest * self._W_enc_FD.norm(dim=1)

    def watch(self, latents_M: Tensor, look: Look) -> None:
        """Have `look` shown these columns of every block, as (number of the first row, pre_RM)."""
        self._watchers.append((latents_M, look))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, pre_RF), without the bias; what is yielded is overwritten by the next block."""
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
            for latents_M, look in self._watchers:
                look(first, pre_RF.gather(1, latents_M.expand(len(chunk_RD), -1)))
            yield first, pre_RF

    def exact(self, kept: RowSparse, latents_M: Tensor | None = None) -> Tensor:
        """The kept entries, (N,), as float32 gives them, with the bias; `kept.pre` holds what the blocks had there.

        With `latents_M` the entries are of these columns alone, as a watcher saw them.
        """
        pre_N = kept.pre
        if not self.is_exact:
            W_enc_FD = self._W_enc_FD if latents_M is None else self._W_enc_FD[latents_M]
            pre_N = kept.sample_product(self.input_BD, W_enc_FD)
        if self.b_enc_F is None:
            return pre_N
        return pre_N + kept.gather(self.b_enc_F if latents_M is None else self.b_enc_F[latents_M])

    def whole(self) -> Tensor:
        """(B, F), in float32, with the bias."""
        pre_BF = self.input_BD @ self._W_enc_FD.T
        return pre_BF if self.b_enc_F is None else pre_BF.add_(self.b_enc_F)


class RowTops:
    """The k largest entries of each row, found block by block."""

    def __init__(self, product: Product, k: int, latents_M: Tensor | None = None) -> None:
        """Of all columns, or of `latents_M` alone, which the product is then asked to show."""
        self._product, self._latents_M = product, latents_M
        self._width = product.shape[1] if latents_M is None else len(latents_M)
        self._k = min(k, self._width)
        # where the product is approximate, a few more are considered than are kept
        self._proposed = self._k if product.is_exact else min(self._k + self._k // SPARE + 1, self._width)
        self._tops: dict[int, tuple[Tensor, Tensor]] = {}
        self._bias_M = product.b_enc_F
        if latents_M is not None:
            self._bias_M = None if self._bias_M is None else self._bias_M[latents_M]
            product.watch(latents_M, self.look)

    def look(self, first: int, pre_RF: Tensor) -> None:
        if self._proposed == self._width:
            col_F = torch.arange(self._width, device=pre_RF.device)
            self._tops[first] = pre_RF.clone(), col_F.expand_as(pre_RF)
        else:
            # the blocks have no bias, which `exact` adds to what was chosen
            biased_RF = pre_RF if self._bias_M is None else pre_RF + self._bias_M
            col_RK = biased_RF.topk(self._proposed, dim=1, sorted=False).indices
            self._tops[first] = pre_RF.gather(1, col_RK), col_RK

    def kept(self) -> RowSparse:
        """Those of the blocks that were looked at; entries below zero are kept as zeros."""
        pre_BK, col_BK = (torch.cat(parts) for parts in zip(*self._tops.values(), strict=True))
        proposed = RowSparse.from_rows(col_BK, pre_BK, self._width)
        pre_BK = self._product.exact(proposed, self._latents_M).view_as(col_BK)
        if self._proposed > self._k:
            pre_BK, places_BK = pre_BK.topk(self._k, dim=1, sorted=False)
            col_BK = col_BK.gather(1, places_BK)
        return RowSparse.from_rows(col_BK, pre_BK.relu(), self._width)


def top_per_row(product: Product, k: int) -> RowSparse:
    """The k largest entries of each row, those below zero as zeros."""
    tops = RowTops(product, k)
    for first, pre_RF in product.blocks():
        tops.look(first, pre_RF)
    return tops.kept()


def above(product: Product, floor_F: Tensor, at_most: float = 1.0) -> RowSparse | None:
    """The positive entries above their latent's floor; None if more than the share `at_most` of the first block are."""
    dict_size = product.shape[1]
    bias_F = torch.zeros_like(floor_F) if product.b_enc_F is None else product.b_enc_F
    floor_F = floor_F.clamp(min=0)
    # the blocks have no bias, and may be rounded: take a little more than will be kept
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
    """Whether a float32 product on CUDA may round its factors to TF32."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if on else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
