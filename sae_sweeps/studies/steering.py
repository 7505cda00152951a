"""Changes latents, or meta-latents of their directions, at the hook, and compares the predictions of the next token.

What the SAE does not reconstruct stays in the activation, so a change of nothing changes no prediction. The changes of
meta-latents are those of arXiv:2502.04878, section 5: a latent keeps its activations, and its direction changes.
"""

# S positions of a prompt, D model width, F latents, J changed latents or meta-latents, A latents, V vocabulary

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import SAE
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.meta_sae import decompose


@dataclass(frozen=True)
class Edits:
    """Changes of J latents: an activation z becomes factor * z + offset. For meta-latents, z is a weight."""

    index_J: Tensor
    factor_J: Tensor
    offset_J: Tensor

    @classmethod
    def build(cls, clamp: Mapping[int, float], add: Mapping[int, float], remove: Sequence[int]) -> "Edits":
        """Build the changes of the settings: latents with a fixed activation, a raised one, and with activation 0.

        Raises: ConfigError if a latent is named twice.
        """
        names = [*clamp, *add, *remove]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError("steer", twice, "is changed twice", "name a latent in one of clamp, add and remove, once")
        factors = [0.0] * len(clamp) + [1.0] * len(add) + [0.0] * len(remove)
        offsets = [*clamp.values(), *add.values(), *[0.0] * len(remove)]
        return cls(torch.tensor(names), torch.tensor(factors), torch.tensor(offsets))

    def to(self, device: torch.device) -> "Edits":
        """Return the changes on a device."""
        return Edits(self.index_J.to(device), self.factor_J.to(device), self.offset_J.to(device))

    def find_change(self, before_BJ: Tensor) -> Tensor:
        """Return what activations or weights (B, J) change by, (B, J)."""
        return (self.factor_J - 1) * before_BJ + self.offset_J


def change_latents(sae: SAE, x_SD: Tensor, edits: Edits) -> tuple[Tensor, Tensor]:
    """Return activations (S, D) with latents changed, and the latents' activations before, (S, J).

    An activation x becomes x + s * sum_j (z'_j - z_j) d_j, with directions d and the deviation s of the SAE's
    normalisation.
    """
    normalized = sae.normalize(x_SD)
    before_SJ = gather_columns(sae.find_active(normalized), edits.index_J)
    moved_SD = edits.find_change(before_SJ) @ sae.W_dec.detach()[edits.index_J]
    return x_SD + moved_SD * normalized.std_B1, before_SJ


def change_meta_latents(
    sae: SAE, meta: SAE, x_SD: Tensor, edits: Edits, of: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Return activations (S, D) with meta-latents of the latents' directions changed, and the weights before, (A, J).

    An activation x becomes x + s * sum_a z_a |d_a| sum_j (w'_aj - w_aj) m_j: latent a with direction d_a, weight w_aj
    of meta-latent j in it, and the meta-latent's direction m_j.
    of: the latents whose directions change; empty: all. A are those of them that are active at a position
    """
    normalized = sae.normalize(x_SD)
    kept = sae.find_active(normalized)
    latents_A = kept.col_N[kept.active].unique().long()
    if of:
        latents_A = latents_A[torch.isin(latents_A, torch.tensor(of, device=latents_A.device))]
    rows_AD = sae.W_dec.detach()[latents_A]
    norm_A1 = rows_AD.norm(dim=1, keepdim=True)
    if len(latents_A) == 0:
        return x_SD, x_SD.new_zeros(0, len(edits.index_J))
    weights_AJ = gather_columns(decompose(meta, rows_AD / norm_A1), edits.index_J)
    moved_AD = edits.find_change(weights_AJ) @ meta.W_dec.detach()[edits.index_J] * norm_A1
    moved_SD = gather_columns(kept, latents_A) @ moved_AD
    return x_SD + moved_SD * normalized.std_B1, weights_AJ


def gather_columns(matrix: RowSparse, index_J: Tensor) -> Tensor:
    """Return the activations in the columns `index_J` of a sparse (B, F) matrix as a dense one, (B, J)."""
    place_F = torch.full((matrix.shape[1],), -1, device=matrix.col_N.device)
    place_F[index_J] = torch.arange(len(index_J), device=place_F.device)
    place_N = matrix.gather(place_F)
    is_chosen_N = place_N >= 0
    found_BJ = matrix.value.new_zeros(matrix.shape[0], len(index_J))
    found_BJ[matrix.row_N[is_chosen_N].long(), place_N[is_chosen_N]] = matrix.value[is_chosen_N]
    return found_BJ


@dataclass(frozen=True)
class TokenChange:
    """The log-probabilities of a next token before and after a change, in nats."""

    token: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """Return by how many nats the log-probability rises."""
        return self.after - self.before


@dataclass(frozen=True)
class Steered:
    """What a change does to the prediction of the token after a prompt.

    words: of the words asked for
    raised, lowered: of the tokens whose log-probability rises and falls most, largest change first
    kl: Kullback-Leibler divergence of the prediction after from the one before, in nats
    most_J: largest activation (or weight) of each changed latent (or meta-latent) in the prompt before the change
    """

    prompt: str
    words: dict[str, TokenChange]
    raised: list[TokenChange]
    lowered: list[TokenChange]
    kl: float
    most_J: list[float]


def steer(
    model: LanguageModel,
    tokens_S: Tensor,
    prompt: str,
    words: Mapping[str, int],
    change: Callable[[Tensor], tuple[Tensor, Tensor]],
    is_changed_S: Tensor,
    top: int,
) -> Steered:
    """Predict the token after a prompt with and without a change of the activations at the hook.

    words: word -> id of its first token
    change: from activations (S, D) to changed ones, and the activations or weights (..., J) before
    is_changed_S: positions at which the activations are changed, bool (S,)
    top: number of tokens in `raised` and in `lowered`
    """
    found: list[Tensor] = []

    def replace(x_SD: Tensor) -> Tensor:
        changed_SD, before = change(x_SD[is_changed_S])
        found.append(before)
        replaced_SD = x_SD.clone()
        replaced_SD[is_changed_S] = changed_SD
        return replaced_SD

    before_V, after_V = model.predict_next(tokens_S), model.predict_next(tokens_S, replace)

    def describe(token: int) -> TokenChange:
        return TokenChange(model.tokenizer.decode([token]), before_V[token].item(), after_V[token].item())

    # of the tokens that are likely before or after: a change from 1e-12 to 1e-9 says nothing
    weight_V = (after_V - before_V) * torch.maximum(before_V, after_V).exp()
    order = weight_V.argsort(descending=True).tolist()
    (values,) = found
    most_J = values.amax(0).tolist() if len(values) else [0.0] * values.shape[1]
    return Steered(
        prompt,
        {word: describe(token) for word, token in words.items()},
        [describe(token) for token in order[:top] if weight_V[token] > 0],
        [describe(token) for token in order[: -top - 1 : -1] if weight_V[token] < 0],
        (before_V.exp() * (before_V - after_V)).sum().item(),
        most_J,
    )
