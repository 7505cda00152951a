"""Meta-SAEs: a BatchTopK SAE whose data are the decoder directions of another SAE (arXiv:2502.04878, section 5)."""

# A directions, B of them in a batch, D model width, M meta-latents (atoms), K kept per direction, T rows of a tile

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.config.presets import build_settings
from sae_sweeps.config.studies import MetaConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import SAE, BatchTopKSAE
from sae_sweeps.saes.batchtopk import top_of_batch
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, train

TILE_ENTRIES = 2**24  # of correlations between directions and atoms that are held at a time


def build_trainer(directions_AD: Tensor, settings: MetaConfig) -> tuple[Trainer, TensorStream]:
    """A meta-SAE that is yet to be trained on the directions, and the stream of these; a chunk is an epoch.

    Its `dict_size` is a quarter of the directions, if the settings leave it open.
    """
    count, width = directions_AD.shape
    batch_size = min(settings.batch_size, count)
    stream = TensorStream(directions_AD, batch_size, chunk_size=count, seed=settings.seed)
    size = settings.dict_size or max(1, count // 4)
    meta = BatchTopKSAE(width, size, settings.k, normalize_input=False, seed=settings.seed)
    config = TrainingConfig(
        tokens=settings.steps * batch_size,
        batch_size=batch_size,
        lr=settings.lr,
        decay_fraction=0.2,
        initial_bias="mean",
        dead_after_tokens=5 * stream.chunk_size,
    )
    return Trainer(meta.to(directions_AD.device), config), stream


@torch.no_grad()
def set_threshold(meta: BatchTopKSAE, directions_AD: Tensor) -> None:
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
def decompose(meta: SAE, directions_AD: Tensor) -> RowSparse:
    """The meta-latents of each direction, and their weights: the entries of a matrix (A, M)."""
    return meta.active(meta.normalize(directions_AD))


@torch.no_grad()
def compute_explained_variance(directions_AD: Tensor, reconstructed_AD: Tensor) -> float:
    """1 - sum |d - d_hat|^2 / sum |d - mean|^2 (arXiv:2502.04878, section 5)."""
    left = (directions_AD - reconstructed_AD).double().square().sum()
    return 1 - (left / (directions_AD - directions_AD.mean(0)).double().square().sum()).item()


@torch.no_grad()
def compute_explained_share(directions_AD: Tensor, reconstructed_AD: Tensor) -> Tensor:
    """The same of each direction alone: the share of its deviation from the mean that is explained, (A,)."""
    left_A = (directions_AD - reconstructed_AD).square().sum(1)
    return 1 - left_A / (directions_AD - directions_AD.mean(0)).square().sum(1)


@torch.no_grad()
def orthogonal_matching_pursuit(directions_AD: Tensor, atoms_MD: Tensor, k: int) -> Tensor:
    """The directions (A, D), less their mean, as sums of k atoms (M, D) each, plus that mean.

    Orthogonal matching pursuit: the atom that correlates most with what is left joins, and the weights of all that
    joined are fitted anew. It codes any dictionary, so that dictionaries can be compared which have no encoder for
    these directions. Needs no more memory than a tile of correlations, and k atoms per direction of the tile.
    """
    k = min(k, len(atoms_MD))
    mean_D = directions_AD.mean(0)
    unit_MD = torch.nn.functional.normalize(atoms_MD, dim=1)
    rows = max(1, min(TILE_ENTRIES // len(atoms_MD), TILE_ENTRIES // (k * atoms_MD.shape[1])))
    return torch.cat([_pursue_tile(tile_TD - mean_D, unit_MD, k) for tile_TD in directions_AD.split(rows)]) + mean_D


def _pursue_tile(target_TD: Tensor, unit_MD: Tensor, k: int) -> Tensor:
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


def shuffle_directions(directions_AD: Tensor, seed: int) -> Tensor:
    """Random directions of the same shape, (A, D): each coordinate's values dealt out anew among the directions, whose
    norms are then made 1."""
    generator = torch.Generator().manual_seed(seed)
    order_AD = torch.rand(directions_AD.shape, generator=generator).argsort(0)
    dealt_AD = directions_AD.gather(0, order_AD.to(directions_AD.device))
    return torch.nn.functional.normalize(dealt_AD, dim=1)


@torch.no_grad()
def replace_directions(sae: SAE, latents_A: Tensor, directions_AD: Tensor) -> SAE:
    """The SAE with the decoder directions of some latents replaced; these keep the norms that their rows have, which in
    SAEs from elsewhere need not be 1."""
    changed = copy.deepcopy(sae)
    changed.W_dec[latents_A] = directions_AD * sae.W_dec[latents_A].norm(dim=1, keepdim=True)
    return changed


def expand_to_all_latents(kept: RowSparse, latents_A: Tensor, dict_size: int) -> RowSparse:
    """The decompositions of some latents (A, M) as those of all (F, M): the others have none."""
    return RowSparse.from_sorted(latents_A[kept.row_N], kept.col_N, kept.value, (dict_size, kept.shape[1]))


class MetaSAE:
    """A trained meta-SAE with the decoder directions that it decomposes. `MetaSAE.train` makes one.

    sae: the meta-SAE, whose latents are the meta-latents; `sae.W_dec` (M, D) are their directions
    latents_A: which latents of the SAE were decomposed
    directions_AD: their decoder directions, of unit norm
    settings: that it was trained by
    """

    def __init__(self, sae: BatchTopKSAE, latents_A: Tensor, directions_AD: Tensor, settings: MetaConfig) -> None:
        self.sae, self.latents_A, self.directions_AD, self.settings = sae, latents_A, directions_AD, settings

    @classmethod
    def train(
        cls,
        sae: SAE | Tensor,
        settings: MetaConfig | None = None,
        *,
        latents: Tensor | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        **values: Any,
    ) -> "MetaSAE":
        """Train a BatchTopK SAE on the decoder directions of an SAE.

        sae: the SAE, or any directions (F, D), which are scaled to unit norm
        settings: a MetaConfig, or its values by name: dict_size (meta-latents; by default a quarter of the directions),
            k (4: meta-latents per direction, on average), steps (2000), batch_size (1024), lr (0.004), seed (0)
        latents: the numbers of the latents to decompose, (A,); by default all. The command leaves out those that are
            active nowhere, whose directions have not been trained
        told: hears how many steps of how many are done

        Raises: ConfigError if a setting cannot work, or if there are more meta-latents than directions.
        """
        settings = build_settings(MetaConfig, settings, values)
        W_dec_FD = (sae if isinstance(sae, Tensor) else sae.W_dec).detach()
        latents_A = torch.arange(len(W_dec_FD)) if latents is None else latents
        latents_A = latents_A.to(W_dec_FD.device)
        directions_AD = torch.nn.functional.normalize(W_dec_FD[latents_A], dim=1)
        if not 0 < (settings.dict_size or 1) <= len(directions_AD):
            problem = f"there are only {len(directions_AD)} decoder directions to learn from"
            raise ConfigError("meta.dict_size", settings.dict_size, problem, "give fewer meta-latents")
        return cls(_train(directions_AD, settings, on_progress), latents_A, directions_AD, settings)

    def control(self) -> "MetaSAE":
        """The same, trained on shuffled directions. What the SAE's directions have of their own is by how much its
        `explained_variance` is lower. Takes as long as the training did."""
        directions_AD = shuffle_directions(self.directions_AD, self.settings.seed)
        return MetaSAE(_train(directions_AD, self.settings), self.latents_A, directions_AD, self.settings)

    @cached_property
    def weights(self) -> RowSparse:
        """The meta-latents of each direction and their weights: the entries of a matrix (A, M), `dense()` of which is
        the matrix itself."""
        return decompose(self.sae, self.directions_AD)

    @cached_property
    def reconstructed_AD(self) -> Tensor:
        """The directions as sums of their meta-latents, (A, D)."""
        return self.sae(self.directions_AD)

    @property
    def explained_variance(self) -> float:
        """Of all directions together: 1 - sum |d - d_hat|^2 / sum |d - mean|^2 (arXiv:2502.04878, section 5)."""
        return compute_explained_variance(self.directions_AD, self.reconstructed_AD)

    @property
    def explained_A(self) -> Tensor:
        """The same of each direction alone, (A,)."""
        return compute_explained_share(self.directions_AD, self.reconstructed_AD)

    def find_meta_latents(self, latent: int) -> list[tuple[int, float]]:
        """What a latent's direction is made of: meta-latents and their weights, the largest first.

        Raises: KeyError if the latent was not decomposed.
        """
        (row,) = (self.latents_A == latent).nonzero().squeeze(1).tolist() or (None,)
        if row is None:
            raise KeyError(f"latent {latent} was not decomposed")
        return _sorted_entries(self.weights, row)

    def find_latents(self, meta_latent: int, most: int = 10) -> list[tuple[int, float]]:
        """The latents whose directions use a meta-latent most, and with which weights."""
        found = _sorted_entries(self._users, meta_latent)[:most]
        return [(int(self.latents_A[row]), weight) for row, weight in found]

    @cached_property
    def _users(self) -> RowSparse:
        return self.weights.transposed()

    def replace_directions(self, sae: SAE) -> SAE:
        """A copy of the SAE with the directions replaced by their reconstructions, for `evaluate` to tell what that
        costs."""
        return replace_directions(sae, self.latents_A, self.reconstructed_AD)


def _train(
    directions_AD: Tensor, settings: MetaConfig, on_progress: Callable[[int, int], None] | None = None
) -> BatchTopKSAE:
    trainer, stream = build_trainer(directions_AD, settings)
    for _, steps in train([trainer], stream):
        for _ in steps:
            if on_progress is not None:
                on_progress(trainer.steps_done, settings.steps)
    assert isinstance(trainer.sae, BatchTopKSAE), "made as one"
    set_threshold(trainer.sae, directions_AD)
    return trainer.sae


def _sorted_entries(kept: RowSparse, row: int) -> list[tuple[int, float]]:
    """The columns and values of a row, the largest first."""
    at = slice(int(kept.crow_B1[row]), int(kept.crow_B1[row + 1]))
    value, order = kept.value[at].sort(descending=True)
    return list(zip(kept.col_N[at][order].tolist(), value.tolist(), strict=True))
