"""BatchTopK SAEs: the k x B largest latents of a whole batch are active (arXiv:2412.06410)."""

# B activations in a batch

import torch
from torch import Tensor

from sae_sweeps.config.saes import BatchTopKConfig, SAEConfig
from sae_sweeps.runtime.inputs import check_names
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.selection import keep_above, keep_top_of_batch
from sae_sweeps.saes.sparse import Entries, RowSparse
from sae_sweeps.saes.topk import TopKSAE

GUESS = 0.98  # share of the last batch's threshold to try first; the next batch's is hardly ever lower


class BatchTopKSAE(TopKSAE):
    """TopK, but k is the mean number of active latents: one activation may use more than k and another fewer.

    At inference a threshold replaces the comparison within a batch: the running mean, over training batches, of the
    smallest positive activation that a batch keeps (arXiv:2412.06410, equation 5).
    """

    architecture = "batchtopk"

    threshold: Tensor
    threshold_weight: Tensor
    smallest_kept: Tensor

    @check_names
    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int,
        *,
        aux_coefficient: float = BatchTopKConfig.aux_coefficient,
        aux_latents: int = BatchTopKConfig.aux_latents,
        threshold_momentum: float = BatchTopKConfig.threshold_momentum,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        super().__init__(
            d_in,
            dict_size,
            k,
            aux_coefficient=aux_coefficient,
            aux_latents=aux_latents,
            normalize_input=normalize_input,
            seed=seed,
        )
        self._require_options(threshold_momentum=threshold_momentum)
        self.threshold_momentum = threshold_momentum
        self.register_buffer("threshold", torch.zeros(()))
        # sum of the running mean's weights so far, which makes the mean unbiased from the first batch on
        self.register_buffer("threshold_weight", torch.zeros(()))
        # of the last batch, or -1; only the time of the next search depends on it, so checkpoints do not have it
        self.register_buffer("smallest_kept", torch.tensor(-1.0), persistent=False)

    def keep(self, product: Product) -> Entries:
        """Select the k x B largest pre-activations of the batch (B activations), fewer if fewer are positive."""
        latest = torch.where(self.smallest_kept < 0, self.threshold, self.smallest_kept)
        return keep_top_of_batch(product, self.k, GUESS * latest)

    def update_statistics(self, kept: Entries) -> None:
        """Update the inference threshold: the running mean of the smallest positive activation that a batch keeps."""
        if len(kept.value) == 0:
            return
        smallest = torch.where(kept.active, kept.value, torch.inf).min()  # inf if none is active: nothing is learned
        self.smallest_kept.copy_(torch.where(smallest.isfinite(), smallest, 0.0))
        weight = 1 - self.threshold_momentum
        total = self.threshold_weight * self.threshold_momentum + weight
        threshold = self.threshold.lerp(smallest, weight / total)
        for buffer, value in ((self.threshold, threshold), (self.threshold_weight, total)):
            buffer.copy_(torch.where(smallest.isfinite(), value, buffer))

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the pre-activations above the inference threshold."""
        kept = keep_above(product, self.threshold.expand(product.shape[1]))
        assert kept is not None, "keep_above returns entries if no `at_most` is given"
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE with these weights and the inference threshold for every latent."""
        return self._build_inference_sae(threshold=self.threshold.expand(self.dict_size))
