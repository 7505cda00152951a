"""TopK SAEs: the k largest latents of each activation are active (arXiv:2406.04093)."""

# B activations in a batch, M dead latents

from collections.abc import Callable

import torch
from torch import Tensor

from sae_sweeps.config.saes import SAEConfig, TopKConfig
from sae_sweeps.runtime.inputs import check_names
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.selection import RowTopK, keep_top_per_row
from sae_sweeps.saes.sparse import DENSE_LIMIT, Dense, Entries, RowSparse, dense_from
from sae_sweeps.saes.trainable import TrainableSAE

SEARCHED = 0.02  # share of the dead latents below which searching for candidates is faster than a dense product


class TopKSAE(TrainableSAE):
    """pre = relu((x - b_dec) @ W_enc^T); the k largest latents of each activation are kept.

    Dead latents get an auxiliary loss with weight `aux_coefficient`: for each activation, the `aux_latents` largest
    dead latents reconstruct the residual that the kept latents leave. The residual counts as a constant
    (arXiv:2406.04093, appendix A.2), unless the step's variant differentiates it.
    """

    architecture = "topk"
    centers_input = True
    has_bias = False

    @check_names
    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int,
        *,
        aux_coefficient: float = TopKConfig.aux_coefficient,
        aux_latents: int = TopKConfig.aux_latents,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, dict_size, normalize_input=normalize_input, seed=seed)
        self._require_options(aux_coefficient=aux_coefficient, aux_latents=aux_latents)
        self.k = self._require_k(k)
        self.aux_coefficient = aux_coefficient
        self.aux_latents = aux_latents

    def keep(self, product: Product) -> Entries:
        """Select the k largest pre-activations of each activation, with 0 in place of negative values."""
        return keep_top_per_row(product, self.k)

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the k largest pre-activations of each activation, with 0 in place of negative values."""
        return keep_top_per_row(product, self.k)

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE with these weights and k, which is limited to the number of latents."""
        return self._build_inference_sae(k=min(self.k, self.dict_size))

    def collect_dead(self, product: Product, dead_M: Tensor, *, is_read: bool) -> Callable[[], Entries] | None:
        """Collect the `aux_latents` largest dead latents of each activation.

        `dead_M` (M,) holds the indices of the dead latents. With `is_read`, `keep` has made its encoder pass already,
        and a search among many dead latents makes one of its own. Returns: a callable that returns the collected (B, M)
        entries after `keep`; None if there are no dead latents or `aux_coefficient` is 0.
        """
        if len(dead_M) == 0 or self.aux_coefficient == 0:
            return None
        batch, dead = product.shape[0], len(dead_M)
        if self.aux_latents < SEARCHED * dead or batch * dead > DENSE_LIMIT:
            if is_read:
                return lambda: keep_top_per_row(product.take(slice(None), dead_M), self.aux_latents)
            return RowTopK(product, self.aux_latents, dead_M).collect
        return lambda: _keep_top(product.take(slice(None), dead_M).to_dense(), self.aux_latents)


def _keep_top(pre_BM: Tensor, k: int) -> Entries:
    """Return the k largest pre-activations of each row of a dense matrix, with 0 in place of negative values."""
    batch, width = pre_BM.shape
    top = pre_BM.topk(min(k, width), dim=1, sorted=False)
    if k >= dense_from((batch, width), pre_BM.device) * width:
        return Dense(torch.zeros_like(pre_BM).scatter_(1, top.indices, top.values.relu()))
    return RowSparse.from_rows(top.indices, top.values.relu(), width)
