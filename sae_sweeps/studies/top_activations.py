"""The tokens on which each latent is most active, and the share of tokens on which the latent is active at all."""

# B tokens in a batch, F latents, M meta-latents, E examples kept per latent, N kept entries of a (B, F) matrix

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import RowSparse


class TopActivations:
    """The E tokens on which each latent is most active, each from another sequence, found in one pass over a text.

    Memory: a few numbers per latent and example. Each call of `update` takes whole sequences, so that the largest
    magnitude in a sequence is known after one call.

    value (F, E): each latent's values on the E tokens, largest magnitude first; 0 where fewer than E were found
    place (F, E): index of each of these tokens in the text, sequence x seq_len + position; -1 where there is none
    fired (F,): number of tokens on which each latent was active
    total (F,): sum of each latent's values over all tokens
    seen: number of tokens so far
    """

    def __init__(self, latents: int, examples: int, seq_len: int, device: torch.device) -> None:
        self._seq_len, self._examples = seq_len, examples
        self.value = torch.zeros(latents, examples, device=device)
        self.place = torch.full((latents, examples), -1, dtype=torch.int64, device=device)
        self.fired = torch.zeros(latents, dtype=torch.int64, device=device)
        self.total = torch.zeros(latents, dtype=torch.float64, device=device)
        self.seen = 0

    @property
    def frequency(self) -> Tensor:
        """Return the share of tokens on which each latent is active, (F,)."""
        return self.fired / max(1, self.seen)

    @property
    def mean(self) -> Tensor:
        """Return the mean value of each latent over the tokens on which it is active, (F,); 0 if it is never active."""
        return self.total / self.fired.clamp(min=1)

    def update(self, kept: RowSparse, place_B: Tensor) -> None:
        """Add the tokens of whole sequences.

        kept: value of each latent on each of the B tokens, (B, F)
        place_B: index of each token in the text
        """
        active_N = kept.active
        row_N = kept.row_N[active_N]
        latent_N, value_N, place_N = kept.col_N[active_N].long(), kept.value[active_N], place_B[row_N]
        self.seen += len(place_B)
        self.fired += torch.bincount(latent_N, minlength=len(self.fired))
        self.total += torch.bincount(latent_N, weights=value_N.double(), minlength=len(self.fired))

        sequence_N = place_N // self._seq_len
        sequences = int(place_B.max()) // self._seq_len + 1
        strongest = _find_largest_per_key(latent_N * sequences + sequence_N, value_N.abs())
        latent_N, value_N, place_N = latent_N[strongest], value_N[strongest], place_N[strongest]
        order = _sort_by_key(latent_N, value_N.abs())
        latent_N, value_N, place_N = latent_N[order], value_N[order], place_N[order]
        latents, start, run_N = _find_runs(latent_N)
        rank_N = torch.arange(len(latent_N), device=latent_N.device) - start[run_N]
        best_N = rank_N < self._examples
        values = self.value.new_zeros(len(latents), self._examples)
        places = self.place.new_full(values.shape, -1)
        values[run_N[best_N], rank_N[best_N]] = value_N[best_N].to(values.dtype)
        places[run_N[best_N], rank_N[best_N]] = place_N[best_N]
        values = torch.cat([self.value[latents], values], dim=1)
        chosen = values.abs().topk(self._examples, dim=1).indices
        self.place[latents] = torch.cat([self.place[latents], places], dim=1).gather(1, chosen)
        self.value[latents] = values.gather(1, chosen)


def _find_runs(sorted_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct values of a sorted list, the index where each value's run starts, and each element's run."""
    values, run_N, counts = sorted_N.unique_consecutive(return_inverse=True, return_counts=True)
    return values, counts.cumsum(0) - counts, run_N


def _sort_by_key(key_N: Tensor, value_N: Tensor) -> Tensor:
    """Return the indices (N,) that sort by ascending key, and by descending value where keys are equal."""
    order = value_N.argsort(descending=True, stable=True)
    return order[key_N[order].argsort(stable=True)]


def _find_largest_per_key(key_N: Tensor, value_N: Tensor) -> Tensor:
    """Return the index of the largest value of each distinct key, in ascending order of keys."""
    order = _sort_by_key(key_N, value_N)
    _, start, _ = _find_runs(key_N[order])
    return order[start]


def compute_meta_activations(kept: RowSparse, decomposition: RowSparse) -> RowSparse:
    """Return the activations of meta-latents (B, M): latent activations (B, F) times decomposition weights (F, M).

    Let z_i be the activation of latent i, and w_im the weight of meta-latent m, with direction u_m, in latent i. With
    every decoder direction replaced by its decomposition, the SAE decodes to sum_i z_i (sum_m w_im u_m). So the factor
    of u_m is sum_i z_i w_im.
    """
    batch, meta = kept.shape[0], decomposition.shape[1]
    parts_F = decomposition.crow_Bp1.diff()  # meta-latents per latent
    parts_N = parts_F[kept.col_N].long()
    source = torch.arange(len(parts_N), device=parts_N.device).repeat_interleave(parts_N)
    within = torch.arange(len(source), device=source.device) - (parts_N.cumsum(0) - parts_N)[source]
    entry = decomposition.crow_Bp1[kept.col_N].long()[source] + within
    index = torch.stack([kept.row_N[source], decomposition.col_N[entry]]).long()
    value = kept.value[source] * decomposition.value[entry]
    summed = torch.sparse_coo_tensor(index, value, (batch, meta), check_invariants=False).coalesce()
    row_N, col_N = summed.indices()
    return RowSparse.from_sorted(row_N, col_N, summed.values(), (batch, meta))
