"""Meta-SAEs: BatchTopK SAEs trained on the decoder directions of another SAE (arXiv:2502.04878, section 5)."""

# A directions, B of them in a batch, D model width, M meta-latents (atoms), K atoms per direction, T rows of a tile
# F latents of the SAE that is decomposed

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.config.presets import build_settings
from sae_sweeps.config.studies import MetaConfig
from sae_sweeps.evaluation.ratios import NO_SPREAD, complement, divide
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import check_names, describe, require_whole, to_activations, to_latents
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes import SAE, Activations, BatchTopKSAE
from sae_sweeps.saes.selection import keep_top_of_batch
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, train

TILE_ENTRIES = 2**24  # numbers in memory at a time: correlations of directions with atoms, or chosen atoms


def build_trainer(directions_AD: Tensor, settings: MetaConfig) -> tuple[Trainer, TensorStream]:
    """Build the trainer of an untrained meta-SAE, and the stream of directions to train on. A chunk is one epoch.

    If `settings.dict_size` is None, the meta-SAE has a quarter as many meta-latents as there are directions.
    """
    count, width = directions_AD.shape
    batch_size = min(settings.batch_size, count)
    stream = TensorStream(directions_AD, batch_size, chunk_size=count, seed=settings.seed)
    size = settings.dict_size or max(1, count // 4)
    meta = BatchTopKSAE(width, size, min(settings.k, size), normalize_input=False, seed=settings.seed)
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
    """Set the inference threshold of a meta-SAE so that k x A meta-latents are active on the A directions in total.

    Training only gives a running estimate of the threshold. Here it is exact, as all directions are taken as one batch.
    If fewer than k x A pre-activations are positive, the threshold is 0 and all positive ones are active.
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
    """Return the weight of each meta-latent in each direction: the meta-SAE's latent activations, sparse (A, M)."""
    return meta.find_active(meta.normalize(directions_AD))


@torch.no_grad()
def compute_explained_variance(directions_AD: Tensor, reconstructed_AD: Tensor) -> float | None:
    """Return the explained variance of the directions d by their reconstructions d_hat (arXiv:2502.04878, section 5).

    It is 1 - sum |d - d_hat|^2 / sum |d - mean|^2, with sums over all directions, or None if all directions are equal.
    """
    error = (directions_AD - reconstructed_AD).double().square().sum().item()
    variance = (directions_AD - directions_AD.mean(0)).double().square().sum().item()
    return complement(divide(error, variance, NO_SPREAD * directions_AD.double().square().sum().item()))


@torch.no_grad()
def compute_explained_share(directions_AD: Tensor, reconstructed_AD: Tensor) -> Tensor:
    """Return the explained share of each direction d, (A,): 1 - |d - d_hat|^2 / |d - mean|^2.

    d_hat is the reconstruction of d, mean the mean of all directions. It is NaN for a direction that is the mean.
    """
    error_A = (directions_AD - reconstructed_AD).square().sum(1)
    spread_A = (directions_AD - directions_AD.mean(0)).square().sum(1)
    return 1 - (error_A / spread_A).where(spread_A > NO_SPREAD * directions_AD.square().sum(1), torch.nan)


@torch.no_grad()
def orthogonal_matching_pursuit(directions_AD: Tensor, atoms_MD: Tensor, k: int) -> Tensor:
    """Reconstruct each direction as the mean direction plus a weighted sum of k atoms. Returns reconstructions (A, D).

    atoms_MD: rows of any decoder, of any norm

    In each of k rounds the atom that correlates most with the remainder is added, and the weights of all atoms chosen
    so far are fitted again by least squares. The method needs no encoder, so any two decoders can be compared.
    Memory: one tile of correlations, and k atoms per direction of the tile.
    """
    k = min(k, len(atoms_MD))
    mean_D = directions_AD.mean(0)
    unit_MD = torch.nn.functional.normalize(atoms_MD, dim=1)
    rows = max(1, min(TILE_ENTRIES // len(atoms_MD), TILE_ENTRIES // (k * atoms_MD.shape[1])))
    return torch.cat([_pursue_tile(tile_TD - mean_D, unit_MD, k) for tile_TD in directions_AD.split(rows)]) + mean_D


def _pursue_tile(target_TD: Tensor, unit_MD: Tensor, k: int) -> Tensor:
    """Reconstruct each row of a tile (T, D) as a weighted sum of k of the atoms (M, D), which have unit norm."""
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
    """Return the directions with each coordinate permuted independently among them, scaled to unit norm, (A, D)."""
    generator = torch.Generator().manual_seed(mix_seed(seed, "shuffled directions"))
    order_AD = torch.rand(directions_AD.shape, generator=generator).argsort(0)
    permuted_AD = directions_AD.gather(0, order_AD.to(directions_AD.device))
    return torch.nn.functional.normalize(permuted_AD, dim=1)


@torch.no_grad()
def replace_directions(sae: SAE, latents_A: Tensor, directions_AD: Tensor) -> SAE:
    """Return a copy of the SAE with the decoder directions of the latents `latents_A` replaced by `directions_AD`.

    Each new direction is multiplied by the norm of the old decoder row, which need not be 1 in SAEs from other
    libraries.
    """
    changed = copy.deepcopy(sae)
    changed.W_dec[latents_A] = directions_AD * sae.W_dec[latents_A].norm(dim=1, keepdim=True)
    return changed


def expand_to_all_latents(weights: RowSparse, latents_A: Tensor, dict_size: int) -> RowSparse:
    """Expand weights of the A decomposed latents, (A, M), to all F latents, (F, M). Rows of other latents are empty."""
    return RowSparse.from_sorted(latents_A[weights.row_N], weights.col_N, weights.value, (dict_size, weights.shape[1]))


class MetaSAE:
    """A trained meta-SAE with the decoder directions that it decomposes. `MetaSAE.train` trains one.

    sae: the meta-SAE; its latents are the meta-latents, and `sae.W_dec` (M, D) holds the meta-latents' directions
    latents_A: numbers of the latents of the original SAE that are decomposed
    directions_AD: decoder directions of these latents, of unit norm
    settings: settings of the meta-SAE's training
    """

    def __init__(self, sae: BatchTopKSAE, latents_A: Tensor, directions_AD: Tensor, settings: MetaConfig) -> None:
        self.sae, self.latents_A, self.directions_AD, self.settings = sae, latents_A, directions_AD, settings

    def __repr__(self) -> str:
        return f"MetaSAE({len(self.latents_A)} directions, {self.sae.dict_size} meta-latents, k={self.sae.k})"

    @classmethod
    @check_names
    def train(
        cls,
        sae: SAE | Activations,
        settings: MetaConfig | None = None,
        *,
        latents: Tensor | np.ndarray | Sequence[int] | None = None,
        dict_size: int | None = None,
        k: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        seed: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> "MetaSAE":
        """Train a BatchTopK SAE on the decoder directions of an SAE, and return it as a MetaSAE.

        sae: the SAE, or any directions (F, D), which are scaled to unit norm
        settings: a MetaConfig; the values that are given by name replace its values
        latents: numbers of the latents to decompose, (A,); by default all. `task=meta_sae` leaves out latents that are
            never active, because training does not change their directions
        dict_size: number of meta-latents; by default a quarter of the directions
        k: meta-latents per direction, on average, 4 by default
        steps, batch_size, lr, seed: of the training, by default 2000, 1024, 0.004 and 0
        on_progress: called with (done, total) training steps

        Raises: ConfigError if a setting is out of range, or if there are more meta-latents than directions.
        """
        values = {"dict_size": dict_size, "k": k, "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
        settings = build_settings(MetaConfig, settings, values)
        W_dec_FD = sae.W_dec.detach() if isinstance(sae, SAE) else to_activations("sae", sae)
        latents_A = to_latents(latents, len(W_dec_FD)).to(W_dec_FD.device)
        directions_AD = torch.nn.functional.normalize(W_dec_FD[latents_A], dim=1)
        if not 0 < (settings.dict_size or 1) <= len(directions_AD):
            count = len(directions_AD)
            problem = f"the number of meta-latents must be between 1 and {count}, the number of decoder directions"
            raise ConfigError("meta.dict_size", settings.dict_size, problem, "give a dict_size in this range")
        return cls(_train(directions_AD, settings, on_progress), latents_A, directions_AD, settings)

    def control(self) -> "MetaSAE":
        """Train a control: a meta-SAE with the same settings on shuffled directions. It takes as long as `train`.

        What the meta-SAE's `explained_variance` exceeds the control's by is specific to the SAE's directions.
        """
        shuffled_AD = shuffle_directions(self.directions_AD, self.settings.seed)
        return MetaSAE(_train(shuffled_AD, self.settings), self.latents_A, shuffled_AD, self.settings)

    @cached_property
    def weights(self) -> RowSparse:
        """Return the weight of each meta-latent in each direction, sparse; `to_dense()` gives the tensor (A, M)."""
        return decompose(self.sae, self.directions_AD)

    @cached_property
    def reconstructed_AD(self) -> Tensor:
        """Return the meta-SAE's reconstructions of the directions, (A, D): weighted meta-latents plus decoder bias."""
        return self.sae(self.directions_AD)

    @property
    def explained_variance(self) -> float | None:
        """Return the variance of the directions that the meta-SAE explains (arXiv:2502.04878, section 5).

        It is 1 - sum |d - d_hat|^2 / sum |d - mean|^2 over all directions d, with reconstructions d_hat; None if all
        directions are equal.
        """
        return compute_explained_variance(self.directions_AD, self.reconstructed_AD)

    @property
    def explained_A(self) -> Tensor:
        """Return the explained share of each direction d, (A,): 1 - |d - d_hat|^2 / |d - mean|^2.

        d_hat is the meta-SAE's reconstruction of d, mean the mean of all directions; NaN if d is the mean.
        """
        return compute_explained_share(self.directions_AD, self.reconstructed_AD)

    def find_meta_latents(self, latent: int) -> list[tuple[int, float]]:
        """Return the meta-latents that a latent's direction consists of as (meta-latent, weight), largest weight first.

        latent: the latent's number in the original SAE
        Raises: KeyError if the latent was not decomposed.
        """
        (row,) = (self.latents_A == latent).nonzero().squeeze(1).tolist() or (None,)
        if row is None:
            raise KeyError(f"latent {latent} was not decomposed; `latents_A` lists all decomposed latents")
        return _sort_entries(self.weights, row)

    def find_latents(self, meta_latent: int, most: int = 10) -> list[tuple[int, float]]:
        """Return at most `most` latents that use a meta-latent, as (latent, weight), largest weight first."""
        at = require_whole("meta_latent", meta_latent, 0, self.sae.dict_size - 1, "the last meta-latent, ")
        found = _sort_entries(self._weights_by_meta_latent, at)[:most]
        return [(int(self.latents_A[row]), weight) for row, weight in found]

    @cached_property
    def _weights_by_meta_latent(self) -> RowSparse:
        return self.weights.transpose()

    def replace_directions(self, sae: SAE) -> SAE:
        """Return a copy of the SAE with all decomposed directions replaced by reconstructions, for evaluation.

        Raises: ConfigError if the SAE is not of the size of the one that was decomposed.
        """
        last, width = int(self.latents_A.max()), self.directions_AD.shape[1]
        if not isinstance(sae, SAE) or sae.d_in != width or sae.dict_size <= last:
            problem = f"must be the SAE that was decomposed, with d_in={width} and more than {last} latents"
            raise ConfigError("sae", describe(sae), problem, "give the SAE that MetaSAE.train was given")
        return replace_directions(sae, self.latents_A, self.reconstructed_AD)


def _train(directions_AD: Tensor, settings: MetaConfig, on_progress: OnProgress | None = None) -> BatchTopKSAE:
    trainer, stream = build_trainer(directions_AD, settings)
    for _, steps in train([trainer], stream):
        for _ in steps:
            if on_progress is not None:
                on_progress(trainer.steps_done, settings.steps)
    assert isinstance(trainer.sae, BatchTopKSAE), "build_trainer builds a BatchTopKSAE"
    set_threshold(trainer.sae, directions_AD)
    return trainer.sae


def _sort_entries(matrix: RowSparse, row: int) -> list[tuple[int, float]]:
    """Return the entries of a matrix row as (column, value), largest value first."""
    entries = slice(int(matrix.crow_Bp1[row]), int(matrix.crow_Bp1[row + 1]))
    value, order = matrix.value[entries].sort(descending=True)
    return list(zip(matrix.col_N[entries][order].tolist(), value.tolist(), strict=True))
