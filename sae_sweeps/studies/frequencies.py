"""How often each latent of several SAEs is active in held-out text, in one pass of the language model."""

# B activations in a batch, F latents of an SAE, D model width

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweeps.activations.source import Source
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.saes import SAE


@torch.no_grad()
def count_active(
    source: Source, saes: Sequence[SAE], tokens: int, on_progress: OnProgress | None = None
) -> tuple[list[Tensor], int]:
    """Return on how many held-out activations each latent is active, (F,) for each SAE, and the number of activations.

    tokens: activations to read, about; on_progress: called with (done, total) sequences
    """
    fired = [torch.zeros(sae.dict_size, dtype=torch.int64, device=source.device) for sae in saes]
    seen = 0
    for _, x_BD in source.held_out_text(tokens, on_progress):
        seen += len(x_BD)
        for fired_F, sae in zip(fired, saes, strict=True):
            kept = sae.find_active(sae.normalize(x_BD))
            fired_F += torch.bincount(kept.col_N[kept.active], minlength=sae.dict_size)
    return fired, seen
