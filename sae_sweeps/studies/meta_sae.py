"""Meta-SAEs: a BatchTopK SAE whose data are the decoder directions of another SAE (arXiv:2502.04878, section 5)."""

# A directions, B of them in a batch, D model width, M meta-latents (atoms), K kept per direction, T rows of a tile

import copy

import torch
from torch import Tensor

from sae_sweeps.saes import SAE, BatchTopKSAE
from sae_sweeps.saes.batchtopk import top_of_batch
from sae_sweeps.saes.sparse import Kept

TILE_ENTRIES = 2**24  # of correlations between directions and atoms that are held at a time


class DirectionStream:
    """Directions in shuffled chunks, each an epoch: chunk i depends on (seed, i) alone. What a whole number of batches
    leaves over is another remainder in each epoch."""

    def __init__(self, directions_AD: Tensor, batch_size: int, seed: int) -> None:
        """Raises: ValueError if there are fewer directions than a batch holds."""
        if not 0 < batch_size <= len(directions_AD):
            raise ValueError(f"{len(directions_AD)} directions do not fill a batch of {batch_size}")
        self._directions_AD, self._seed = directions_AD, seed
        self.chunk_size = len(directions_AD) // batch_size * batch_size

    def chunk(self, index: int) -> Tensor:
        """(chunk_size, D)"""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        order = torch.randperm(len(self._directions_AD), generator=generator)[: self.chunk_size]
        return self._directions_AD[order.to(self._directions_AD.device)]


@torch.no_grad()
def settle(meta: BatchTopKSAE, directions_AD: Tensor) -> None:
    """Set the inference threshold such that, on all directions as one batch, k x A entries are active: here the data
    are finite, and nothing has to stand in for the batch."""
    normalized = meta.normalize(directions_AD)
    product = meta.product(meta.encoder_input(normalized.x_BD))
    budget = min(meta.k, meta.dict_size) * len(directions_AD)
    smallest = top_of_batch(product, meta.k).value
    kept = smallest[smallest > 0]
    if len(kept) == budget:  # else fewer are positive, and all of them are active
        meta.threshold.copy_(_just_below(kept.min()))
    else:
        meta.threshold.zero_()
    meta.threshold_weight.fill_(1.0)


def _just_below(value: Tensor) -> Tensor:
    return torch.nextafter(value, torch.zeros_like(value))


@torch.no_grad()
def decompose(meta: SAE, directions_AD: Tensor) -> Kept:
    """The meta-latents of each direction, and their weights: the entries of a matrix (A, M)."""
    return meta.active(meta.normalize(directions_AD))


@torch.no_grad()
def explained_variance(directions_AD: Tensor, reconstructed_AD: Tensor) -> float:
    """1 - sum |d - d_hat|^2 / sum |d - mean|^2 (arXiv:2502.04878, section 5)."""
    left = (directions_AD - reconstructed_AD).double().square().sum()
    return 1 - (left / (directions_AD - directions_AD.mean(0)).double().square().sum()).item()


@torch.no_grad()
def explained_share(directions_AD: Tensor, reconstructed_AD: Tensor) -> Tensor:
    """The same of each direction alone: the share of its deviation from the mean that is explained, (A,)."""
    left_A = (directions_AD - reconstructed_AD).square().sum(1)
    return 1 - left_A / (directions_AD - directions_AD.mean(0)).square().sum(1)


@torch.no_grad()
def pursue(directions_AD: Tensor, atoms_MD: Tensor, k: int) -> Tensor:
    """The directions (A, D), less their mean, as sums of k atoms (M, D) each, plus that mean.

    Orthogonal matching pursuit: the atom that correlates most with what is left joins, and the weights of all that
    joined are fitted anew. It codes any dictionary, so that dictionaries can be compared which have no encoder for
    these directions. Needs no more memory than a tile of correlations, and k atoms per direction of the tile.
    """
    k = min(k, len(atoms_MD))
    mean_D = directions_AD.mean(0)
    unit_MD = torch.nn.functional.normalize(atoms_MD, dim=1)
    rows = max(1, min(TILE_ENTRIES // len(atoms_MD), TILE_ENTRIES // (k * atoms_MD.shape[1])))
    return torch.cat([_pursue(tile_TD - mean_D, unit_MD, k) for tile_TD in directions_AD.split(rows)]) + mean_D


def _pursue(target_TD: Tensor, unit_MD: Tensor, k: int) -> Tensor:
    chosen_TK = torch.empty(len(target_TD), 0, dtype=torch.int64, device=target_TD.device)
    fitted_TD = torch.zeros_like(target_TD)
    for _ in range(k):
        correlation_TM = ((target_TD - fitted_TD) @ unit_MD.T).abs_()
        correlation_TM.scatter_(1, chosen_TK, -1.0)
        chosen_TK = torch.cat([chosen_TK, correlation_TM.argmax(1, keepdim=True)], dim=1)
        atoms_TKD = unit_MD[chosen_TK]
        # of atoms that are alike only their span counts: the smallest of all fits
        inverse_TKK = torch.linalg.pinv(atoms_TKD @ atoms_TKD.mT, hermitian=True)
        weights_TK1 = inverse_TKK @ (atoms_TKD @ target_TD[:, :, None])
        fitted_TD = (atoms_TKD.mT @ weights_TK1).squeeze(2)
    return fitted_TD


def shuffled(directions_AD: Tensor, seed: int) -> Tensor:
    """Random directions of the same shape, (A, D): each coordinate's values dealt out anew among the directions, whose
    norms are then made 1."""
    generator = torch.Generator().manual_seed(seed)
    order_AD = torch.rand(directions_AD.shape, generator=generator).argsort(0)
    dealt_AD = directions_AD.gather(0, order_AD.to(directions_AD.device))
    return torch.nn.functional.normalize(dealt_AD, dim=1)


@torch.no_grad()
def with_directions(sae: SAE, latents_A: Tensor, directions_AD: Tensor) -> SAE:
    """The SAE with the decoder directions of some latents replaced; the new ones, (A, D), are in place of unit vectors,
    and the rows of an SAE may have other norms, which stay."""
    changed = copy.deepcopy(sae)
    changed.W_dec[latents_A] = directions_AD * sae.W_dec[latents_A].norm(dim=1, keepdim=True)
    return changed


def over_all_latents(kept: Kept, latents_A: Tensor, dict_size: int) -> Kept:
    """The decompositions of some latents (A, M) as those of all (F, M): the others have none."""
    return Kept.from_sorted(latents_A[kept.row_N], kept.col_N, kept.value, (dict_size, kept.shape[1]))
