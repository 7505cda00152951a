"""BatchTopK SAEs: the k x B largest latents of a whole batch are active (arXiv:2412.06410)."""

# B activations in a batch, R of them in a block, D model width, F latents (dict_size), M = R x F entries of a block,
# N entries

from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config.saes import BatchTopKConfig
from sae_sweeps.saes.encoder import SPARE, Product, keep_above
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.sparse import Entries, RowSparse
from sae_sweeps.saes.topk import TopKSAE

GUESS = 0.95  # share of the running threshold; the threshold of a single batch is hardly ever lower
GUESS_APPROXIMATE = 0.9  # the same share for an approximate product, where more entries are proposed than kept
MOST_CANDIDATES = 4  # limit of candidates, in multiples of the number wanted; more are cut to half the limit


def keep_top_of_batch(product: Product, k: int, guess: float = 0.0) -> RowSparse:
    """Return the k x B largest pre-activations of the (B, F) matrix as sparse entries; fewer if fewer are positive.
    `guess` is a lower bound to try first, 0 for none. It saves time and does not change the result: entries below
    `guess` are ignored if enough lie above.
    """
    batch, dict_size = product.shape
    budget = min(k, dict_size) * batch
    wanted = budget if product.is_exact else budget + budget // SPARE
    flat_N, pre_N = _find_candidates(product, wanted, guess)
    if guess > 0 and len(flat_N) < wanted:
        flat_N, pre_N = _find_candidates(product, wanted, 0.0)
    if not product.is_exact:
        flat_N, pre_N = _keep_largest(flat_N, pre_N, wanted)
        pre_N = product.exact(RowSparse.from_flat(flat_N, pre_N, product.shape))
    flat_N, pre_N = _keep_largest(flat_N, pre_N, budget)
    return RowSparse.from_flat(flat_N, pre_N.relu(), product.shape)


def _find_candidates(product: Product, wanted: int, floor: float) -> tuple[Tensor, Tensor]:
    """Find the largest entries above `floor`: at least the `wanted` largest, or all entries if there are fewer.

    Returns: the entries' positions (N,) in the flattened (B, F) matrix, ascending, and the entries' values (N,).
    """
    flats: list[Tensor] = []
    pres: list[Tensor] = []
    for first, pre_RF in product.blocks():
        pre_M = pre_RF.view(-1)
        flat_N = (pre_M > floor).nonzero().squeeze(1)
        pres.append(pre_M[flat_N])
        flats.append(flat_N.add_(first * product.shape[1]))
        if sum(map(len, flats)) > MOST_CANDIDATES * wanted:
            flat_N, pre_N = _keep_largest(torch.cat(flats), torch.cat(pres), MOST_CANDIDATES // 2 * wanted)
            flats, pres, floor = [flat_N], [pre_N], pre_N.min().item()
    return torch.cat(flats), torch.cat(pres)


def _keep_largest(flat_N: Tensor, pre_N: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return positions and values of the `count` largest entries, in the order given; of all entries if fewer."""
    if len(flat_N) <= count:
        return flat_N, pre_N
    kept = pre_N.topk(count, sorted=False).indices.to(torch.int32).sort().values
    return flat_N[kept], pre_N[kept]


class BatchTopKSAE(TopKSAE):
    """TopK, but k is the mean number of active latents: one activation may use more than k and another fewer.

    At inference a threshold replaces the comparison within a batch: the running mean, over training batches, of the
    smallest positive activation that a batch keeps (arXiv:2412.06410, equation 5).
    """

    architecture = "batchtopk"

    threshold: Tensor
    threshold_weight: Tensor

    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int,
        *,
        threshold_momentum: float = BatchTopKConfig.threshold_momentum,
        **options: Any,
    ) -> None:
        super().__init__(d_in, dict_size, k, **options)
        self.threshold_momentum = threshold_momentum
        self.register_buffer("threshold", torch.zeros(()))
        # sum of the running mean's weights so far, which makes the mean unbiased from the first batch on
        self.register_buffer("threshold_weight", torch.zeros(()))

    def keep(self, product: Product) -> Entries:
        """Select the k x B largest pre-activations of the batch (B activations), fewer if fewer are positive."""
        guess = GUESS if product.is_exact else GUESS_APPROXIMATE
        return keep_top_of_batch(product, self.k, guess * self.threshold.item())

    def update_statistics(self, kept: Entries) -> None:
        """Update the inference threshold: the running mean of the smallest positive activation that a batch keeps."""
        positive_N = kept.value[kept.active]
        if len(positive_N) > 0:
            weight = 1 - self.threshold_momentum
            self.threshold_weight.mul_(self.threshold_momentum).add_(weight)
            self.threshold.lerp_(positive_N.min(), weight / self.threshold_weight)

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the pre-activations above the inference threshold."""
        kept = keep_above(product, self.threshold.expand(product.shape[1]))
        assert kept is not None, "keep_above returns entries if no `at_most` is given"
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE with these weights and the inference threshold for every latent."""
        return self._build_inference_sae(threshold=self.threshold.expand(self.dict_size))
