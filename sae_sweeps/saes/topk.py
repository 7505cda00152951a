"""TopK: the k largest latents of each activation are active (arXiv:2406.04093)."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents, K kept per row

from typing import Any

import torch

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.sparse import DENSE_FROM, Entries, Kept, Whole

SPARE = 8  # where the product is approximate, one entry in so many more is considered than is kept


def top_per_row(product: Product, k: int) -> Kept:
    """The k largest entries of each row."""
    batch, dict_size = product.shape
    k = min(k, dict_size)
    proposed = k if product.is_exact else min(k + k // SPARE + 1, dict_size)
    tops = [pre_RF.topk(proposed, dim=1, sorted=False) for _, pre_RF in product.blocks()]
    col_BK, pre_BK = torch.cat([top.indices for top in tops]), torch.cat([top.values for top in tops])
    pre_BK = product.exact(Kept.from_rows(col_BK, pre_BK, dict_size)).view(batch, proposed)
    if proposed > k:
        pre_BK, places_BK = pre_BK.topk(k, dim=1, sorted=False)
        col_BK = col_BK.gather(1, places_BK)
    return Kept.from_rows(col_BK, pre_BK.relu(), dict_size)


class TopKSAE(SAE):
    """pre = relu((x - b_dec) @ W_enc^T); the k largest per activation are kept.

    Dead latents get an auxiliary loss: the `aux_latents` largest of them reconstruct what the others left over, weighed
    by `aux_coefficient` (arXiv:2406.04093, appendix A.2). The residual is held constant in it.
    """

    architecture = "topk"
    centers_input = True

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int,
        *,
        aux_coefficient: float = 1 / 32,
        aux_latents: int = 512,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, **options)
        self.k = k
        self.aux_coefficient = aux_coefficient
        self.aux_latents = aux_latents

    def keep(self, product: Product) -> Entries:
        return top_per_row(product, self.k)

    def keep_for_inference(self, product: Product) -> Kept:
        return top_per_row(product, self.k)

    def keep_dead(self, product: Product) -> Entries | None:
        kept = top_per_row(product, self.aux_latents)
        density = min(self.aux_latents / product.shape[1], 1)
        return Whole(kept.dense()) if density >= DENSE_FROM else kept
