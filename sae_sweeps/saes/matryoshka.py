"""Matryoshka SAEs: BatchTopK SAEs in which prefixes of the latents also reconstruct alone (arXiv:2503.17547)."""

# B activations in a batch, D model width, F latents (dict_size), P prefixes of the dictionary

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweeps.config.saes import PREFIXES, MatryoshkaConfig, SAEConfig
from sae_sweeps.runtime.inputs import check_names, require_type, to_plain
from sae_sweeps.saes.batchtopk import BatchTopKSAE
from sae_sweeps.saes.sparse import ColumnSparse, Entries, LatentEntries, RowSparse
from sae_sweeps.saes.step import Fit


class MatryoshkaSAE(BatchTopKSAE):
    """BatchTopK with a reconstruction loss for each prefix of the dictionary: the first n latents, for several n.

    The loss is the sum, over the prefixes, of the mean squared error of the reconstruction from the kept latents of the
    prefix (arXiv:2503.17547, section 3). `prefixes` are fractions of dict_size, ascending to 1. The kept latents are
    the k x B largest of the whole dictionary, and the auxiliary loss is on the residual of the whole dictionary.
    """

    architecture = "matryoshka"
    fits_room = False  # its entries move to the rows of several prefixes

    group_F: Tensor

    @check_names
    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int,
        *,
        prefixes: Sequence[float] = PREFIXES,
        aux_coefficient: float = MatryoshkaConfig.aux_coefficient,
        aux_latents: int = MatryoshkaConfig.aux_latents,
        threshold_momentum: float = MatryoshkaConfig.threshold_momentum,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        super().__init__(
            d_in,
            dict_size,
            k,
            aux_coefficient=aux_coefficient,
            aux_latents=aux_latents,
            threshold_momentum=threshold_momentum,
            normalize_input=normalize_input,
            seed=seed,
        )
        fractions = to_plain(prefixes)
        require_type("prefixes", fractions, list | tuple, "fractions of dict_size", "prefixes=[0.25, 1.0]")
        self._require_options(prefixes=list(fractions))
        self.sizes = [round(share * dict_size) for share in fractions]
        # group g holds the latents that prefix g adds to prefix g - 1
        group_F = torch.bucketize(torch.arange(dict_size), torch.tensor(self.sizes), right=True, out_int32=True)
        self.register_buffer("group_F", group_F, persistent=False)

    def fit(self, kept: Entries, entries: LatentEntries, x_BD: Tensor) -> Fit:
        """Compute the sum, over the P prefixes, of the mean squared error of the prefix's reconstruction.

        In the result, `error_BD` is the error of the whole dictionary's reconstruction. Rows g * B to (g + 1) * B - 1
        of `grad_RD` and `entries` belong to the latents that prefix g adds to prefix g - 1.
        """
        assert isinstance(kept, RowSparse), "BatchTopK keeps sparse entries"
        assert isinstance(entries, ColumnSparse), "BatchTopK keeps sparse entries"
        prefixes = len(self.sizes)
        added_PBD = kept.split_groups(self.group_F, prefixes).decode(self.W_dec).view(prefixes, *x_BD.shape)
        error_PBD = added_PBD.cumsum_(0).add_(self.b_dec).sub_(x_BD)
        grad_PBD = error_PBD * (2 / x_BD.numel())
        for grad_BD, longer_BD in reversed(list(itertools.pairwise(grad_PBD))):
            grad_BD += longer_BD  # a group's latents reconstruct in their own prefix and in all longer ones
        loss = error_PBD.square().sum() / x_BD.numel()
        moved = entries.split_groups(self.group_F, prefixes)
        return Fit(loss, error_PBD[-1].square().mean(), error_PBD[-1], moved, grad_PBD.flatten(0, 1))
