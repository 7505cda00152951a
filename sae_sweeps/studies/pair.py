"""A small and a large SAE held against each other: which latents are novel, the paths between the two, what follows."""

# A activations, B of them in a batch, D model width, S latents of the small SAE, L of the large one

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_sweeps.config.presets import build_settings
from sae_sweeps.config.studies import StitchConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import SAE
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

SHOWN = 500  # points of a ROC curve that a picture needs


class Pair:
    """Two SAEs on the same activations: the decoder directions are compared at once, activations come by `update`.

    A latent of the large SAE is novel if its largest cosine is below the threshold, else a reconstruction latent.

    Four paths are measured: `interpolation` from the small SAE to the large one; `reconstruction` and `random`, which
    put in such latents in a random order, as controls; and `by_cosine`, which puts in what each of the thresholds would
    call novel, one after the other.
    """

    def __init__(
        self, small: SAE, large: SAE, settings: StitchConfig, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """`told` hears how many directions of how many are compared. Raises: ValueError if the two do not see
        activations alike."""
        self.settings = settings
        self.thresholds = sorted({*settings.thresholds, settings.threshold})
        self.compared = compare(small.W_dec.detach(), large.W_dec.detach(), self.thresholds, on_progress)
        self.cosine_L = self.compared.right.cosine
        self.novel_L = self.cosine_L < settings.threshold
        novel = self.novel_L.nonzero().squeeze(1)
        novel = novel[self.cosine_L[novel].argsort(stable=True)]
        sizes = (small.dict_size, large.dict_size, settings.positions)
        self.interpolation, self.novel_in = interpolate(novel, self.compared.families[settings.threshold], *sizes)
        generator = torch.Generator().manual_seed(settings.seed)

        def drawn(of: Tensor) -> Tensor:
            return of[torch.randperm(len(of), generator=generator).to(of.device)]

        everyone = torch.arange(large.dict_size, device=novel.device)
        self.paths = {
            "interpolation": self.interpolation,
            "reconstruction": insert_in_order(drawn((~self.novel_L).nonzero().squeeze(1)), *sizes),
            "random": insert_in_order(drawn(everyone), *sizes),
            "by_cosine": insert_by_value(self.cosine_L, self.thresholds, small.dict_size),
        }
        self.stitching = Stitching(small, large, list(self.paths.values()))

    def update(self, x_BD: Tensor) -> None:
        """Take a batch of raw activations into account."""
        self.stitching.update(x_BD)

    @property
    def ce_positions(self) -> list[int]:
        """About `settings.ce_positions` positions of the interpolation: its ends, where the novel latents are in, where
        the families are swapped, and others."""
        last = self.interpolation.length
        even = np.linspace(0, last, max(2, self.settings.ce_positions - 2)).round().astype(int)
        return sorted({*even.tolist(), self.novel_in, last - 1})

    def encode(self, x_AD: Tensor) -> PathReconstructions:
        """The reconstructions of raw activations along the interpolation."""
        return PathReconstructions(self.interpolation, self.stitching.small, self.stitching.large, x_AD)

    @cached_property
    def prediction(self) -> Prediction:
        return measure_prediction(self.cosine_L, self.stitching.change_L, self.stitching.fired_L)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        return dict(zip(self.paths, self.stitching.compute_curves(), strict=True))

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers of a study, but for the CE degradation."""
        fired_L, lowers_L = self.stitching.fired_L > 0, self.stitching.change_L < 0
        way = self.curves["interpolation"]

        def share(of_L: Tensor) -> float | None:
            return lowers_L[of_L].double().mean().item() if of_L.any() else None

        return {
            "activations": self.stitching.seen,
            "latents": len(self.cosine_L),
            "latents_active": self.prediction.latents,
            "novel": int(self.novel_L.sum()),
            "novel_active": int((self.novel_L & fired_L).sum()),
            "novel_lowering_share": share(self.novel_L & fired_L),
            "reconstruction_lowering_share": share(~self.novel_L & fired_L),
            "auroc": self.prediction.auroc,
            "best_threshold": self.prediction.best_threshold,
            "mse_small": self.stitching.mse,
            "nmse_small": way.nmse[0],
            "nmse_novel_in": way.nmse[self.novel_in],
            "nmse_lowest_on_the_way": min(way.nmse[: self.novel_in + 1]),
            "nmse_reconstruction_in": self.curves["reconstruction"].nmse[-1],
            "nmse_all_in": self.curves["random"].nmse[-1],
            "nmse_large": way.nmse[-1],
            "l0_small": way.l0[0],
            "l0_novel_in": way.l0[self.novel_in],
            "l0_large": way.l0[-1],
        }

    @property
    def details(self) -> dict[str, Any]:
        """What results.json has beside the metrics."""
        predicted = asdict(self.prediction)
        for name, value in predicted.items():
            if isinstance(value, list) and len(value) > SHOWN:
                places = np.linspace(0, len(value) - 1, SHOWN).round().astype(int)
                predicted[name] = [value[place] for place in places]
        return {
            "curves": {**{name: asdict(curve) for name, curve in self.curves.items()}, "novel_in": self.novel_in},
            "thresholds": self._by_threshold(),
            "families": count_families(self.compared.families[self.settings.threshold]),
            "prediction": predicted,
        }

    def _by_threshold(self) -> list[dict[str, Any]]:
        """What each threshold would make of the latents; NMSE and L0 with all that it calls novel put in."""
        by_cosine = self.curves["by_cosine"]
        rows = []
        for position, threshold in enumerate(self.thresholds, start=1):
            true_rate, false_rate = compute_rates(
                self.cosine_L, self.stitching.change_L, self.stitching.fired_L, threshold
            )
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


def stitch(
    small: SAE,
    large: SAE,
    activations: Tensor | Iterable[Tensor],
    settings: StitchConfig | None = None,
    **values: Any,
) -> Pair:
    """Measure what the latents of a large SAE bring that a small one lacks (arXiv:2502.04878, section 4).

    activations: raw activations (A, D) on which neither was trained, or batches of them
    settings: a StitchConfig, or its values by name: threshold (0.7: the decoder cosine from which latents are alike),
        thresholds (others that are looked at), positions (20: of each part of a curve), seed (0: of the controls)

    What came out, of the latents of the large SAE (L,): `cosine_L`, `novel_L` and `stitching.change_L`, the change in
    MSE when that latent alone is put in. Of the whole: `metrics` (docs/studies.md says what they are), `prediction`
    with the AUROC, `curves` from the small SAE to the large one, `compared.families`. Where the language model is at
    hand, `walk(x_AD).at(position)` gives reconstructions on the way, for the CE degradation.

    Raises: ConfigError if a setting cannot work, the SAEs do not see activations alike, or there are no activations.
    """
    settings = build_settings(StitchConfig, settings, values)
    for name, here, there in (
        ("d_in", small.d_in, large.d_in),
        ("normalization", small.normalization, large.normalization),
    ):
        if here != there:
            raise ConfigError(name, here, f"that of the large SAE is {there}", "stitch SAEs that see activations alike")
    pair = Pair(small, large, settings)
    for x_BD in activations.split(BATCH) if isinstance(activations, Tensor) else activations:
        if x_BD.shape[1:] != (small.d_in,):
            problem = f"are not of shape (any number, {small.d_in}), which the SAEs are for"
            raise ConfigError("activations", tuple(x_BD.shape), problem, "give raw activations of the SAEs' hook")
        if len(x_BD) > 0:
            pair.update(x_BD.to(large.W_dec.device))
    if pair.stitching.seen == 0:
        raise ConfigError("activations", 0, "there are none", "give some thousands")
    return pair
