"""The encoder's product, the one dense product of a training step, made and looked through block by block."""

# B activations in a batch, R of them in a block, D model width, F latents, M watched latents, N kept entries

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import Kept

BLOCK = 2**23  # entries of the product in one block: it is looked through while it is still in the cache, or nearly
BLOCK_CUDA = 2**28
SLACK = 2**-6  # a share of a threshold, several times the error of a product of bfloat16 numbers


class Product:
    """input @ W_enc^T + b_enc, (B, F), of which no more than a block of rows is held at a time.

    With a `precision` other than float32 the blocks only propose entries: `exact` computes those that were kept anew.
    """

    def __init__(
        self, input_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor | None = None, *, precision: str = "float32"
    ) -> None:
        self._input_BD, self._W_enc_FD, self.b_enc_F = input_BD, W_enc_FD, b_enc_F
        self._precision = precision
        self.shape = (input_BD.shape[0], W_enc_FD.shape[0])
        self._watched_M: Tensor | None = None
        self._columns_BM: Tensor | None = None

    @property
    def is_exact(self) -> bool:
        return self._precision == "float32"

    def watch(self, latents_M: Tensor) -> None:
        """Have `blocks` put these columns aside, for `part`."""
        self._watched_M = latents_M

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, pre_RF), without the bias; what is yielded is overwritten by the next block."""
        batch, dict_size = self.shape
        input_BD, W_enc_FD = self._input_BD, self._W_enc_FD
        if self._precision == "bfloat16":
            input_BD, W_enc_FD = input_BD.bfloat16(), W_enc_FD.bfloat16()
        rows = max(1, min(batch, (BLOCK_CUDA if input_BD.is_cuda else BLOCK) // dict_size))
        block_RF = input_BD.new_empty(rows, dict_size)
        watched_M, columns_BM = self._watched_M, None
        if watched_M is not None:
            columns_BM = self._columns_BM = input_BD.new_empty(batch, len(watched_M))
        for first in range(0, batch, rows):
            chunk_RD = input_BD[first : first + rows]
            pre_RF = block_RF[: len(chunk_RD)]
            with _tensor_cores(self._precision == "tf32"):
                torch.mm(chunk_RD, W_enc_FD.T, out=pre_RF)
            if watched_M is not None and columns_BM is not None:
                torch.index_select(pre_RF, 1, watched_M, out=columns_BM[first : first + rows])
            yield first, pre_RF

    def part(self) -> "Product":
        """The watched columns, as a product of their own; its blocks have been computed already."""
        assert self._watched_M is not None, "watch() comes first"
        assert self._columns_BM is not None, "blocks() comes first"
        return _KnownProduct(self._columns_BM, self._input_BD, self._W_enc_FD[self._watched_M], self._precision)

    def exact(self, kept: Kept) -> Tensor:
        """The kept entries, (N,), as float32 gives them, with the bias; `kept.pre` holds what the blocks had there."""
        pre_N = kept.pre if self.is_exact else kept.entries_of(self._input_BD, self._W_enc_FD)
        return pre_N if self.b_enc_F is None else pre_N + kept.per_latent(self.b_enc_F)

    def whole(self) -> Tensor:
        """(B, F), in float32, with the bias."""
        pre_BF = self._input_BD @ self._W_enc_FD.T
        return pre_BF if self.b_enc_F is None else pre_BF.add_(self.b_enc_F)


class _KnownProduct(Product):
    """A product that has been computed before."""

    def __init__(self, known_BF: Tensor, input_BD: Tensor, W_enc_FD: Tensor, precision: str) -> None:
        super().__init__(input_BD, W_enc_FD, precision=precision)
        self._known_BF = known_BF

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        yield 0, self._known_BF


def above(product: Product, floor_F: Tensor, at_most: float = 1.0) -> Kept | None:
    """The positive entries above their latent's floor; None if more than the share `at_most` of the first block are."""
    dict_size = product.shape[1]
    bias_F = torch.zeros_like(floor_F) if product.b_enc_F is None else product.b_enc_F
    floor_F = floor_F.clamp(min=0)
    # the blocks have no bias, and may be rounded: take a little more than will be kept
    slack = SLACK if not product.is_exact else 8 * torch.finfo(floor_F.dtype).eps
    proposed_F = floor_F - bias_F - slack * (floor_F + bias_F.abs())
    flats: list[Tensor] = []
    pres: list[Tensor] = []
    for first, pre_RF in product.blocks():
        flat_N = (pre_RF > proposed_F).view(-1).nonzero().squeeze(1)
        if first == 0 and len(flat_N) > at_most * pre_RF.numel():
            return None
        pres.append(pre_RF.view(-1)[flat_N])
        flats.append(flat_N.add_(first * dict_size))
    flat_N = torch.cat(flats)
    proposed = Kept.from_flat(flat_N, torch.cat(pres), product.shape)
    pre_N = product.exact(proposed)
    kept_N = pre_N > proposed.per_latent(floor_F)
    return Kept.from_flat(flat_N[kept_N], pre_N[kept_N], product.shape)


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
