"""What latents mean to a person: the tokens on which they are most active, and how often they are active at all."""

# B activations in a batch, F latents, M meta-latents, E examples of a latent, N kept entries

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import RowSparse


class TopActivations:
    """The strongest activation of each latent in each of a few sequences, in one pass over any amount of text.

    Memory: a few numbers per latent and example. Each call of `update` is given whole sequences, so that the strongest
    activation in a sequence is known when it has gone by.

    value (F, E): activations, the strongest first, 0 where there are no more; place (F, E): where in the text they are,
    as sequence x seq_len + position.
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
        """The share of the activations on which each latent is active, (F,)."""
        return self.fired / max(1, self.seen)

    @property
    def mean(self) -> Tensor:
        """The mean of each latent's activations where it is active, (F,); 0 if it never is."""
        return self.total / self.fired.clamp(min=1)

    def update(self, kept: RowSparse, place_B: Tensor) -> None:
        """Take whole sequences into account: their active latents, and the place of each activation."""
        active_N = kept.active
        row_N = kept.row_N[active_N]
        latent_N, value_N, place_N = kept.col_N[active_N].long(), kept.value[active_N], place_B[row_N]
        self.seen += len(place_B)
        self.fired += torch.bincount(latent_N, minlength=len(self.fired))
        self.total += torch.bincount(latent_N, weights=value_N.double(), minlength=len(self.fired))

        sequence_N = place_N // self._seq_len
        sequences = int(place_B.max()) // self._seq_len + 1
        strongest = _find_largest_per_key(latent_N * sequences + sequence_N, value_N)
        latent_N, value_N, place_N = latent_N[strongest], value_N[strongest], place_N[strongest]
        order = _sort_by_key(latent_N, value_N)
        latent_N, value_N, place_N = latent_N[order], value_N[order], place_N[order]
        touched, start, of_N = _find_runs(latent_N)
        rank_N = torch.arange(len(latent_N), device=latent_N.device) - start[of_N]
        among = rank_N < self._examples
        values = self.value.new_zeros(len(touched), self._examples)
        places = self.place.new_full(values.shape, -1)
        values[of_N[among], rank_N[among]] = value_N[among].to(values.dtype)
        places[of_N[among], rank_N[among]] = place_N[among]
        values, best = torch.cat([self.value[touched], values], dim=1).topk(self._examples, dim=1)
        self.place[touched] = torch.cat([self.place[touched], places], dim=1).gather(1, best)
        self.value[touched] = values


def _find_runs(sorted_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different values of an ascending list, where each begins, and which of them each element is."""
    values, of_N, counts = sorted_N.unique_consecutive(return_inverse=True, return_counts=True)
    return values, counts.cumsum(0) - counts, of_N


def _sort_by_key(key_N: Tensor, value_N: Tensor) -> Tensor:
    """The order by key, and of equal keys by value, the largest first."""
    order = value_N.argsort(descending=True, stable=True)
    return order[key_N[order].argsort(stable=True)]


def _find_largest_per_key(key_N: Tensor, value_N: Tensor) -> Tensor:
    """For each different key, where its largest value is."""
    order = _sort_by_key(key_N, value_N)
    _, start, _ = _find_runs(key_N[order])
    return order[start]


def compute_meta_activations(kept: RowSparse, decomposition: RowSparse) -> RowSparse:
    """The activations of meta-latents, as the entries of a matrix (B, M): what is active of the latents (B, F), times
    the weights of their decompositions (F, M).

    With every decoder direction replaced by its decomposition, sum_i z_i (sum_m w_im u_m), this is what multiplies the
    meta-latent's direction u_m: sum_i z_i w_im.
    """
    batch, meta = kept.shape[0], decomposition.shape[1]
    parts_F = decomposition.crow_B1.diff()
    parts_N = parts_F[kept.col_N].long()
    source = torch.arange(len(parts_N), device=parts_N.device).repeat_interleave(parts_N)
    within = torch.arange(len(source), device=source.device) - (parts_N.cumsum(0) - parts_N)[source]
    entry = decomposition.crow_B1[kept.col_N].long()[source] + within
    place = torch.stack([kept.row_N[source], decomposition.col_N[entry]]).long()
    value = kept.value[source] * decomposition.value[entry]
    summed = torch.sparse_coo_tensor(place, value, (batch, meta), check_invariants=False).coalesce()
    row_N, col_N = summed.indices()
    return RowSparse.from_sorted(row_N, col_N, summed.values(), (batch, meta))
