"""Meta-SAEs: BatchTopK SAEs trained on the decoder directions of another SAE (arXiv:2502.04878, section 5)."""

# A directions, B of them in a batch, D model width, M meta-latents (atoms), K atoms per direction, T rows of a tile
# F latents of the SAE that is decomposed

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.config.presets import build_settings
from sae_sweeps.config.studies import MetaConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.saes import SAE, BatchTopKSAE
from sae_sweeps.saes.batchtopk import keep_top_of_batch
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, train

TILE_ENTRIES = 2**24  # correlations between directions and atoms in memory at a time


def build_trainer(directions_AD: Tensor, settings: MetaConfig) -> tuple[Trainer, TensorStream]:
    """Build the trainer of an untrained meta-SAE, and the stream of directions, whose chunks are epochs.

    `settings.dict_size=None` means a quarter of the directions.
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
    """Set the inference threshold so that k x A entries are active on all directions together.

    The running estimate of training is not needed: all data are at hand, as one batch. If fewer entries are positive,
    all of those are active.
    """
    normalized = meta.normalize(directions_AD)
    product = meta.product(meta.encoder_input(normalized.x_BD))
    budget = min(meta.k, meta.dict_size) * len(directions_AD)
    kept = keep_top_of_batch(product, meta.k).value
    positive = kept[kept > 0]
    if len(positive) == budget:
        smallest = positive.min()
        meta.threshold.copy_(torch.nextafter(smallest, torch.zeros_like(smallest)))  # activations above it are active
    else:
        meta.threshold.zero_()
    meta.threshold_weight.fill_(1.0)


@torch.no_grad()
def decompose(meta: SAE, directions_AD: Tensor) -> RowSparse:
    """Return the weights of each direction's meta-latents, as the entries of a matrix (A, M)."""
    return meta.find_active(meta.normalize(directions_AD))


@torch.no_grad()
def compute_explained_variance(directions_AD: Tensor, reconstructed_AD: Tensor) -> float:
    """Return 1 - sum |d - d_hat|^2 / sum |d - mean|^2 over the directions (arXiv:2502.04878, section 5)."""
    error = (directions_AD - reconstructed_AD).double().square().sum()
    return 1 - (error / (directions_AD - directions_AD.mean(0)).double().square().sum()).item()


@torch.no_grad()
def compute_explained_share(directions_AD: Tensor, reconstructed_AD: Tensor) -> Tensor:
    """Return 1 - |d - d_hat|^2 / |d - mean|^2 for each direction, (A,)."""
    error_A = (directions_AD - reconstructed_AD).square().sum(1)
    return 1 - error_A / (directions_AD - directions_AD.mean(0)).square().sum(1)


@torch.no_grad()
def orthogonal_matching_pursuit(directions_AD: Tensor, atoms_MD: Tensor, k: int) -> Tensor:
    """Reconstruct each direction (A, D) as the mean direction plus a sum of k atoms (M, D), of any norm.

    In each of k rounds the atom that correlates most with the remainder is added, and the weights of all atoms chosen
    so far are fitted again by least squares. This needs no encoder, so any two dictionaries can be compared.
    Memory: one tile of correlations, and k atoms per direction of the tile.
    """
    k = min(k, len(atoms_MD))
    mean_D = directions_AD.mean(0)
    unit_MD = torch.nn.functional.normalize(atoms_MD, dim=1)
    rows = max(1, min(TILE_ENTRIES // len(atoms_MD), TILE_ENTRIES // (k * atoms_MD.shape[1])))
    return torch.cat([_pursue_tile(tile_TD - mean_D, unit_MD, k) for tile_TD in directions_AD.split(rows)]) + mean_D


def _pursue_tile(target_TD: Tensor, unit_MD: Tensor, k: int) -> Tensor:
    """Reconstruct the rows of a tile from k atoms of unit norm each."""
    chosen_TK = torch.empty(len(target_TD), 0, dtype=torch.int64, device=target_TD.device)
    fitted_TD = torch.zeros_like(target_TD)
    for _ in range(k):
        correlation_TM = ((target_TD - fitted_TD) @ unit_MD.T).abs_()
        correlation_TM.scatter_(1, chosen_TK, -1.0)
        chosen_TK = torch.cat([chosen_TK, correlation_TM.argmax(1, keepdim=True)], dim=1)
        atoms_TKD = unit_MD[chosen_TK]
        # the pseudo-inverse takes the minimum-norm fit where chosen atoms are linearly dependent
        inverse_TKK = torch.linalg.pinv(atoms_TKD @ atoms_TKD.mT, hermitian=True)
        weights_TK1 = inverse_TKK @ (atoms_TKD @ target_TD[:, :, None])
        fitted_TD = (atoms_TKD.mT @ weights_TK1).squeeze(2)
    return fitted_TD


def shuffle_directions(directions_AD: Tensor, seed: int) -> Tensor:
    """Permute each coordinate independently among the directions (A, D), then scale the rows to unit norm."""
    generator = torch.Generator().manual_seed(seed)
    order_AD = torch.rand(directions_AD.shape, generator=generator).argsort(0)
    permuted_AD = directions_AD.gather(0, order_AD.to(directions_AD.device))
    return torch.nn.functional.normalize(permuted_AD, dim=1)


@torch.no_grad()
def replace_directions(sae: SAE, latents_A: Tensor, directions_AD: Tensor) -> SAE:
    """Return a copy of the SAE with the decoder directions of some latents replaced.

    The decoder rows keep their norms, which need not be 1 in SAEs from other libraries.
    """
    changed = copy.deepcopy(sae)
    changed.W_dec[latents_A] = directions_AD * sae.W_dec[latents_A].norm(dim=1, keepdim=True)
    return changed


def expand_to_all_latents(weights: RowSparse, latents_A: Tensor, dict_size: int) -> RowSparse:
    """Expand the decompositions of some latents (A, M) to all latents (F, M); the other rows are empty."""
    return RowSparse.from_sorted(latents_A[weights.row_N], weights.col_N, weights.value, (dict_size, weights.shape[1]))


class MetaSAE:
    """A trained meta-SAE with the decoder directions that it decomposes. `MetaSAE.train` makes one.

    sae: the meta-SAE, whose latents are the meta-latents; `sae.W_dec` (M, D) are their directions
    latents_A: the latents of the original SAE that are decomposed
    directions_AD: their decoder directions, of unit norm
    settings: the settings of its training
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
        on_progress: OnProgress | None = None,
        **values: Any,
    ) -> "MetaSAE":
        """Train a BatchTopK SAE on the decoder directions of an SAE.

        sae: the SAE, or any directions (F, D), which are scaled to unit norm
        settings: a MetaConfig, or its values by name: dict_size (meta-latents; by default a quarter of the directions),
            k (4: meta-latents per direction, on average), steps (2000), batch_size (1024), lr (0.004), seed (0)
        latents: the latents to decompose, (A,); by default all. `task=meta_sae` leaves out latents that are never
            active, whose directions have not been trained
        on_progress: called with (done, total) steps

        Raises: ConfigError if a setting is out of range, or if there are more meta-latents than directions.
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
        """Train the control, a meta-SAE with the same settings on shuffled directions; it takes as long as `train`.

        The difference between the two `explained_variance` is what is specific to the SAE's directions.
        """
        shuffled_AD = shuffle_directions(self.directions_AD, self.settings.seed)
        return MetaSAE(_train(shuffled_AD, self.settings), self.latents_A, shuffled_AD, self.settings)

    @cached_property
    def weights(self) -> RowSparse:
        """Return the weights of each direction's meta-latents as a sparse matrix; `dense()` gives the tensor (A, M)."""
        return decompose(self.sae, self.directions_AD)

    @cached_property
    def reconstructed_AD(self) -> Tensor:
        """Return the directions as sums of their meta-latents and the meta-SAE's decoder bias, (A, D)."""
        return self.sae(self.directions_AD)

    @property
    def explained_variance(self) -> float:
        """Return 1 - sum |d - d_hat|^2 / sum |d - mean|^2 over the directions (arXiv:2502.04878, section 5)."""
        return compute_explained_variance(self.directions_AD, self.reconstructed_AD)

    @property
    def explained_A(self) -> Tensor:
        """Return 1 - |d - d_hat|^2 / |d - mean|^2 for each direction, (A,)."""
        return compute_explained_share(self.directions_AD, self.reconstructed_AD)

    def find_meta_latents(self, latent: int) -> list[tuple[int, float]]:
        """Find the meta-latents of a latent's direction and their weights, the largest first.

        Raises: KeyError if the latent was not decomposed.
        """
        (row,) = (self.latents_A == latent).nonzero().squeeze(1).tolist() or (None,)
        if row is None:
            raise KeyError(f"latent {latent} was not decomposed")
        return _sort_entries(self.weights, row)

    def find_latents(self, meta_latent: int, most: int = 10) -> list[tuple[int, float]]:
        """Find the latents that use a meta-latent and their weights, the largest first, `most` at most."""
        found = _sort_entries(self._weights_by_meta_latent, meta_latent)[:most]
        return [(int(self.latents_A[row]), weight) for row, weight in found]

    @cached_property
    def _weights_by_meta_latent(self) -> RowSparse:
        return self.weights.transpose()

    def replace_directions(self, sae: SAE) -> SAE:
        """Return a copy of the SAE with its directions replaced by their reconstructions, to be evaluated."""
        return replace_directions(sae, self.latents_A, self.reconstructed_AD)


def _train(directions_AD: Tensor, settings: MetaConfig, on_progress: OnProgress | None = None) -> BatchTopKSAE:
    trainer, stream = build_trainer(directions_AD, settings)
    for _, steps in train([trainer], stream):
        for _ in steps:
            if on_progress is not None:
                on_progress(trainer.steps_done, settings.steps)
    assert isinstance(trainer.sae, BatchTopKSAE), "build_trainer makes one"
    set_threshold(trainer.sae, directions_AD)
    return trainer.sae


def _sort_entries(matrix: RowSparse, row: int) -> list[tuple[int, float]]:
    """Return the columns and values of a row, the largest value first."""
    entries = slice(int(matrix.crow_Bp1[row]), int(matrix.crow_Bp1[row + 1]))
    value, order = matrix.value[entries].sort(descending=True)
    return list(zip(matrix.col_N[entries][order].tolist(), value.tolist(), strict=True))
