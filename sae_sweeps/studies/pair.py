"""Comparison of a small and a large SAE: novel latents, and NMSE and L0 of the mixtures of latents between the SAEs."""

# A activations, B of them in a batch, D model width, S latents of the small SAE, L of the large one

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.config.presets import build_settings
from sae_sweeps.config.studies import StitchConfig
from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import check_names, describe, require_type, to_activations
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes import SAE, Activations
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.paths import insert_by_value, insert_in_order, interpolate
from sae_sweeps.studies.stitching import (
    BATCH,
    Curve,
    PathReconstructions,
    Prediction,
    Stitching,
    compute_rates,
    count_families,
    measure_prediction,
)
from sae_sweeps.studies.swaps import FamilySwaps

ROC_POINTS = 500  # maximal number of points of the ROC curve in results.json


class Pair:
    """A small and a large SAE with all measurements of stitching. Decoder directions are compared at construction.

    Then `update` adds batches of activations to the measurements.

    A latent of the large SAE is *novel* if its largest decoder cosine with a latent of the small SAE is below
    `settings.threshold`, else a *reconstruction* latent. A *path* is a sequence of SAEs that starts with the small SAE;
    at each next *position* latents are inserted or removed. Four paths are measured:

    interpolation: ends with the large SAE; inserts novel latents, then swaps families of similar latents
    reconstruction, random: controls; insert all reconstruction latents, or all latents, in a random order
    by_cosine: contains at position i the latents with a cosine below the i-th threshold, in ascending order

    compared: best matches of the decoder directions of both SAEs, and the families at each threshold
    cosine_L (L,): the largest cosine of each latent of the large SAE with a latent of the small SAE
    novel_L (L,): which latents of the large SAE are novel, bool
    novel_in: the position of the interpolation from which all novel latents are inserted
    swaps: what swapping each family alone changes
    """

    def __init__(self, small: SAE, large: SAE, settings: StitchConfig, on_progress: OnProgress | None = None) -> None:
        """Compare the decoder directions of both SAEs and plan the four paths.

        on_progress: called with (done, total) directions of the small SAE compared
        Raises: ValueError if the two SAEs differ in d_in or in normalization.
        """
        self.settings = settings
        self.thresholds = sorted({*settings.thresholds, settings.threshold})
        self.compared = compare(small.W_dec.detach(), large.W_dec.detach(), self.thresholds, on_progress)
        self.cosine_L = self.compared.right.cosine
        self.novel_L = self.cosine_L < settings.threshold
        novel = self.novel_L.nonzero().squeeze(1)
        novel = novel[self.cosine_L[novel].argsort(stable=True)]
        sizes = (small.dict_size, large.dict_size, settings.positions)
        self.interpolation, self.novel_in = interpolate(novel, self.compared.families[settings.threshold], *sizes)

        def shuffle(latents: Tensor, path: str) -> Tensor:
            generator = torch.Generator().manual_seed(mix_seed(settings.seed, f"order of the path {path}"))
            return latents[torch.randperm(len(latents), generator=generator).to(latents.device)]

        all_latents = torch.arange(large.dict_size, device=novel.device)
        self.paths = {
            "interpolation": self.interpolation,
            "reconstruction": insert_in_order(shuffle((~self.novel_L).nonzero().squeeze(1), "reconstruction"), *sizes),
            "random": insert_in_order(shuffle(all_latents, "random"), *sizes),
            "by_cosine": insert_by_value(self.cosine_L, self.thresholds, small.dict_size),
        }
        self.swaps = FamilySwaps(small, large, self.compared.families[settings.threshold])
        self.stitching = Stitching(small, large, list(self.paths.values()), self.swaps)

    def __repr__(self) -> str:
        sizes = f"{self.stitching.small.dict_size} and {self.stitching.large.dict_size} latents"
        return f"Pair({sizes}, {int(self.novel_L.sum())} of these novel, {self.stitching.seen} activations)"

    def update(self, x_BD: Tensor) -> None:
        """Add a batch of raw activations (B, D) to the measurements."""
        self.stitching.update(x_BD)

    @property
    def ce_positions(self) -> list[int]:
        """Return about `settings.ce_positions` positions of the interpolation at which to measure the CE degradation.

        They include both ends of the path, and the positions after the last novel latent is inserted and after the
        last family is swapped.
        """
        last = self.interpolation.length
        even = np.linspace(0, last, max(2, self.settings.ce_positions - 2)).round().astype(int)
        return sorted({*even.tolist(), self.novel_in, last - 1})

    def encode(self, x_AD: Tensor) -> PathReconstructions:
        """Encode raw activations (A, D) with both SAEs, to reconstruct them at any position of the interpolation."""
        return PathReconstructions(self.interpolation, self.stitching.small, self.stitching.large, x_AD)

    @cached_property
    def prediction(self) -> Prediction:
        """Return how well a latent's decoder cosine predicts whether inserting the latent lowers the MSE."""
        return measure_prediction(self.cosine_L, self.stitching.change_L, self.stitching.fired_L)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Return the number of latents, NMSE and L0 at each position of each path, by path name."""
        return dict(zip(self.paths, self.stitching.compute_curves(), strict=True))

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the metrics of a stitching study by name, as listed in docs/studies.md, without CE degradation."""
        active_L, lowers_L = self.stitching.fired_L > 0, self.stitching.change_L < 0
        swaps, curve = self.swaps, self.curves["interpolation"]
        swapped_Q = swaps.fired_Q > 0
        before = curve.nmse[: self.novel_in + 1]

        def compute_lowering_share(chosen_L: Tensor) -> float | None:
            return divide(lowers_L[chosen_L].sum().item(), chosen_L.sum().item())

        return {
            "activations": self.stitching.seen,
            "without_spread": self.stitching.seen - self.stitching.with_spread,
            "latents": len(self.cosine_L),
            "latents_active": self.prediction.latents,
            "novel": int(self.novel_L.sum()),
            "novel_active": int((self.novel_L & active_L).sum()),
            "novel_lowering_share": compute_lowering_share(self.novel_L & active_L),
            "reconstruction_lowering_share": compute_lowering_share(~self.novel_L & active_L),
            "swaps": len(swapped_Q),
            "swaps_active": int(swapped_Q.sum()),
            "swaps_lowering_share": divide(int((swaps.change_Q < 0).sum()), int(swapped_Q.sum())),
            "auroc": self.prediction.auroc,
            "best_threshold": self.prediction.best_threshold,
            "mse_small": self.stitching.mse,
            "nmse_small": curve.nmse[0],
            "nmse_novel_in": curve.nmse[self.novel_in],
            "nmse_lowest_on_the_way": min((nmse for nmse in before if nmse is not None), default=None),
            "nmse_reconstruction_in": self.curves["reconstruction"].nmse[-1],
            "nmse_all_in": self.curves["random"].nmse[-1],
            "nmse_large": curve.nmse[-1],
            "l0_small": curve.l0[0],
            "l0_novel_in": curve.l0[self.novel_in],
            "l0_large": curve.l0[-1],
        }

    @property
    def details(self) -> dict[str, Any]:
        """Return the other entries of results.json: curves, a row per threshold, family sizes and the ROC curve."""
        predicted = asdict(self.prediction)
        for name, value in predicted.items():
            if isinstance(value, list) and len(value) > ROC_POINTS:
                indices = np.linspace(0, len(value) - 1, ROC_POINTS).round().astype(int)
                predicted[name] = [value[index] for index in indices]
        return {
            "curves": {**{name: asdict(curve) for name, curve in self.curves.items()}, "novel_in": self.novel_in},
            "thresholds": self._compare_thresholds(),
            "families": count_families(self.compared.families[self.settings.threshold]),
            "prediction": predicted,
        }

    def _compare_thresholds(self) -> list[dict[str, Any]]:
        """Return a row per threshold.

        A row has the number of novel latents, the number and largest size of families, NMSE and L0 with all novel
        latents inserted, and the true and false positive rates (see `compute_rates`).
        """
        by_cosine = self.curves["by_cosine"]
        measured = (self.cosine_L, self.stitching.change_L, self.stitching.fired_L)
        rows = []
        for position, threshold in enumerate(self.thresholds, start=1):
            true_rate, false_rate = compute_rates(*measured, threshold)
            sizes = count_families(self.compared.families[threshold])
            swapped = [size for size in sizes if size["small"] and size["large"]]
            rows.append(
                {
                    "threshold": threshold,
                    "novel": int((self.cosine_L < threshold).sum()),
                    "families": sum(size["count"] for size in swapped),
                    "largest_family": max((size["small"] + size["large"] for size in swapped), default=0),
                    "nmse_novel_in": by_cosine.nmse[position],
                    "l0_novel_in": by_cosine.l0[position],
                    "true_positive_rate": true_rate,
                    "false_positive_rate": false_rate,
                }
            )
        return rows


@check_names
def stitch(
    small: SAE,
    large: SAE,
    activations: Activations | Iterable[Activations],
    settings: StitchConfig | None = None,
    *,
    threshold: float | None = None,
    thresholds: list[float] | None = None,
    positions: int | None = None,
    seed: int | None = None,
) -> Pair:
    """Measure what the latents of a large SAE add to a small one (arXiv:2502.04878, section 4).

    activations: raw activations (A, D) that neither SAE was trained on, or batches of them
    settings: a StitchConfig; the values that are given by name replace its values
    threshold: 0.7 by default, the decoder cosine from which latents are similar
    thresholds: further cosines to evaluate; positions: 20 by default, positions in each part of a curve
    seed: 0 by default, for the random order in the controls

    Returns a Pair. Per latent of the large SAE (L,): `cosine_L`, `novel_L` and `stitching.change_L`, the change in MSE
    when that latent alone is inserted. Overall: `metrics` (docs/studies.md), `prediction` with the AUROC, `curves` from
    the small SAE to the large one, `compared.families`. `encode(x_AD).reconstruct(position)` returns reconstructions
    along the interpolation, for the CE degradation with a language model.

    Raises: ConfigError if a setting is out of range, the SAEs differ in d_in or normalization, or there are no
    activations, or they have another shape or numbers that are not finite.
    """
    values = {"threshold": threshold, "thresholds": thresholds, "positions": positions, "seed": seed}
    settings = build_settings(StitchConfig, settings, values)
    _require_pair(small, large)
    pair = Pair(small, large, settings)
    for x_BD in _take_batches(activations, small.d_in):
        if len(x_BD) > 0:
            pair.update(x_BD.to(large.W_dec.device, large.W_dec.dtype))
    if pair.stitching.seen == 0:
        raise ConfigError(
            "activations", 0, "there must be at least one activation", "give some thousands of activations"
        )
    return pair


def _require_pair(small: SAE, large: SAE) -> None:
    """Check that two SAEs can be compared. Raises: ConfigError if they are no SAEs, or of different activations."""
    for name, sae in (("small", small), ("large", large)):
        require_type(name, sae, SAE, "one SAE", "stitch(small, large, acts); load_sae(FOLDER) reads one from files")
    for name, small_value, large_value in (
        ("d_in", small.d_in, large.d_in),
        ("normalization", small.normalization, large.normalization),
    ):
        if small_value != large_value:
            problem = f"the small SAE has this {name}, but the large SAE has {name}={large_value}"
            fix = "give two SAEs of one hook that normalise activations in the same way"
            raise ConfigError(name, small_value, problem, fix)


def _take_batches(activations: Activations | Iterable[Activations], d_in: int) -> Iterator[Tensor]:
    """Yield batches of activations that a caller gives, (B, D). Raises: ConfigError if they are none."""
    is_whole = isinstance(activations, Activations) or hasattr(activations, "acts_AD")
    if not is_whole and (isinstance(activations, str) or not isinstance(activations, Iterable)):
        problem = f"must be a tensor or numpy array of shape (any number, {d_in}), or batches of them"
        raise ConfigError("activations", describe(activations), problem, "stream.held_out().acts_AD")
    for given in [activations] if is_whole else activations:
        yield from to_activations("activations", given, d_in, "d_in of both SAEs").split(BATCH)
