"""TopK: the k largest latents of each activation are active (arXiv:2406.04093)."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents

from torch import Tensor

from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.sparse import Kept


def top_per_row(pre_BF: Tensor, k: int) -> Kept:
    """The k largest entries of each row."""
    _, col_BK = pre_BF.topk(min(k, pre_BF.shape[1]), dim=1, sorted=False)
    col_BK = col_BK.sort(dim=1).values
    return Kept.from_rows(col_BK, pre_BF.gather(1, col_BK), pre_BF.shape[1])


class TopKSAE(SAE):
    """pre = relu((x - b_dec) @ W_enc); the k largest per activation are kept.

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
        normalize_input: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, dict_size, normalize_input=normalize_input, seed=seed)
        self.k = k
        self.aux_coefficient = aux_coefficient
        self.aux_latents = aux_latents

    def keep(self, pre_BF: Tensor) -> Kept:
        return top_per_row(pre_BF, self.k)

    def keep_for_inference(self, pre_BF: Tensor) -> Kept:
        return top_per_row(pre_BF, self.k)

    def auxiliary(self, pre_BF: Tensor, dead_F: Tensor, residual_BD: Tensor) -> tuple[Tensor, Kept, Tensor] | None:
        dead_M = dead_F.nonzero().squeeze(1)
        if self.aux_coefficient == 0 or len(dead_M) == 0:
            return None
        among_dead = top_per_row(pre_BF[:, dead_M], self.aux_latents)
        shape = (pre_BF.shape[0], pre_BF.shape[1])
        kept = Kept(among_dead.crow_B1, dead_M[among_dead.col_N], among_dead.value_N, shape)
        error_BD = kept.decode(self.W_dec) - residual_BD
        loss = self.aux_coefficient * error_BD.square().mean()
        return loss, kept, error_BD * (2 * self.aux_coefficient / error_BD.numel())
