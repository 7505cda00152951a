"""TopK: the k largest latents of each activation are active (arXiv:2406.04093)."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sae_sweeps.config.saes import TopKConfig
from sae_sweeps.saes.encoder import Product, RowTops, top_per_row
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.sparse import DENSE_FROM, Dense, Entries, RowSparse
from sae_sweeps.saes.trainable import TrainableSAE


class TopKSAE(TrainableSAE):
    """pre = relu((x - b_dec) @ W_enc^T); the k largest per activation are kept.

    Dead latents get an auxiliary loss: the `aux_latents` largest of them reconstruct what the others left over, weighed
    by `aux_coefficient` (arXiv:2406.04093, appendix A.2). The residual is held constant in it.
    """

    architecture = "topk"
    centers_input = True
    has_bias = False

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int,
        *,
        aux_coefficient: float = TopKConfig.aux_coefficient,
        aux_latents: int = TopKConfig.aux_latents,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, **options)
        self.k = k
        self.aux_coefficient = aux_coefficient
        self.aux_latents = aux_latents

    def keep(self, product: Product) -> Entries:
        return top_per_row(product, self.k)

    def keep_for_inference(self, product: Product) -> RowSparse:
        return top_per_row(product, self.k)

    def for_inference(self) -> InferenceSAE:
        return self._build_inference_sae(k=min(self.k, self.dict_size))

    def watch_dead(self, product: Product, dead_M: Tensor) -> Callable[[], Entries] | None:
        if len(dead_M) == 0 or self.aux_coefficient == 0:
            return None
        tops = RowTops(product, self.aux_latents, dead_M)
        dense = self.aux_latents >= DENSE_FROM * len(dead_M)
        return lambda: Dense(tops.kept().to_dense()) if dense else tops.kept()
