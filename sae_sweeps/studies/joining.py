"""Joins SAEs of a chain of sizes: the smallest one, with the novel latents of each larger one.

The authors' "Frankenstein" (the post of 2024 that became arXiv:2502.04878). Every latent keeps its encoder direction,
bias and threshold, and so the activations that it has in its own SAE.
"""

# D model width, F latents of an SAE, J latents of the joined one

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.studies.directions import compare


@dataclass(frozen=True)
class Joined:
    """A joined SAE, and where each of its latents is from.

    part_J: the place of the latent's SAE in the chain; latent_J: the latent's number there
    cosine_J: largest decoder cosine of the latent with those of the SAEs before it; NaN for the smallest SAE's
    """

    sae: InferenceSAE
    part_J: Tensor
    latent_J: Tensor
    cosine_J: Tensor


def find_obstacle(saes: Sequence[InferenceSAE]) -> str | None:
    """Return why SAEs cannot be joined; None if they can.

    The selection of a TopK SAE compares latents with each other, so it is not that of any set of single latents.
    """
    if any(sae.threshold is None for sae in saes):
        return "a TopK SAE has no thresholds: which latents are active depends on all of its latents"
    if len({(sae.d_in, sae.normalization) for sae in saes}) > 1:
        return "the SAEs differ in d_in or in how they normalise activations"
    if len({sae.gain is None for sae in saes}) > 1:
        return "gated SAEs can be joined with gated SAEs only"
    return None


@torch.no_grad()
def join(saes: Sequence[InferenceSAE], threshold: float) -> list[Joined]:
    """Join SAEs of a chain, smallest first. Returns what is joined after each one; the first is the smallest SAE.

    threshold: latents whose decoder cosines with all latents joined so far are below it are novel, and join
    Raises: ConfigError if the SAEs cannot be joined.
    """
    if (obstacle := find_obstacle(saes)) is not None:
        fix = "join SAEs of one architecture with thresholds"
        raise ConfigError("saes", len(saes), f"cannot be joined: {obstacle}", fix)
    first = saes[0]
    everything = torch.arange(first.dict_size, device=first.W_dec.device)
    origin = [torch.zeros_like(everything), everything, first.W_dec.new_full((first.dict_size,), torch.nan)]
    chosen: list[tuple[InferenceSAE, Tensor]] = [(first, everything)]
    found = [Joined(_build(chosen), *origin)]
    for part, sae in enumerate(saes[1:], 1):
        cosine_F = compare(found[-1].sae.W_dec.detach(), sae.W_dec.detach()).right.cosine
        novel = (cosine_F < threshold).nonzero().squeeze(1)
        chosen.append((sae, novel))
        added = (torch.full_like(novel, part), novel, cosine_F[novel])
        origin = [torch.cat(pair) for pair in zip(origin, added, strict=True)]
        found.append(Joined(_build(chosen), *origin))
    return found


def _build(chosen: Sequence[tuple[InferenceSAE, Tensor]]) -> InferenceSAE:
    """Build the SAE of the chosen latents of several SAEs, with the decoder bias of the first."""
    first = chosen[0][0]

    def gather(weights: Sequence[Tensor | None]) -> Tensor | None:
        parts = [weight[latents] for weight, (_, latents) in zip(weights, chosen, strict=True) if weight is not None]
        return torch.cat(parts) if parts else None

    saes = [sae for sae, _ in chosen]
    return InferenceSAE(
        "jumprelu" if first.gain is None else "gated",
        W_enc=torch.cat([sae.W_enc[latents] for sae, latents in chosen]),
        W_dec=torch.cat([sae.W_dec[latents] for sae, latents in chosen]),
        b_enc=torch.cat([sae.encoder_bias(centered=False)[latents] for sae, latents in chosen]),
        b_dec=first.b_dec,
        threshold=gather([sae.threshold for sae in saes]),
        gain=gather([sae.gain for sae in saes]),
        shift=gather([sae.shift for sae in saes]),
        centers_input=False,
        normalization=first.normalization,
    )
