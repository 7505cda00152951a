"""The tokens on which each latent is most active, and how often and how strongly it is active at all."""

# B tokens in a batch, F latents, M meta-latents, E examples kept per latent, N kept entries of a (B, F) matrix
# L latents with new examples, Q new examples, W tokens around an example, with its own

import torch
from torch import Tensor

from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.magnitudes import MagnitudeHistograms


class TopActivations:
    """The E tokens on which each latent is most active, each from another sequence, found in one pass over a text.

    Memory: a few numbers per latent and example. Each call of `update` takes whole sequences, so that the largest
    magnitude in a sequence is known after one call.

    value (F, E): each latent's values on the E tokens, largest magnitude first; 0 where fewer than E were found
    place (F, E): index of each of these tokens in the text, sequence x seq_len + position; -1 where there is none
    around (F, E, W): each latent's values on the `before` tokens before each of these tokens, on the token itself and
        on the `after` tokens after it; 0 outside of its sequence
    histograms: of each latent's magnitudes over the tokens on which it is active
    fired (F,): number of tokens on which each latent was active
    total (F,): sum of each latent's values over all tokens
    seen: number of tokens so far
    """

    def __init__(
        self, latents: int, examples: int, seq_len: int, device: torch.device, before: int = 0, after: int = 0
    ) -> None:
        self._seq_len, self._examples = seq_len, examples
        self._offset_W = torch.arange(-before, after + 1, device=device)
        self.value = torch.zeros(latents, examples, device=device)
        self.place = torch.full((latents, examples), -1, dtype=torch.int64, device=device)
        self.around = torch.zeros(latents, examples, len(self._offset_W), device=device)
        self.histograms = MagnitudeHistograms(latents, device)
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
        self.histograms.update(latent_N, value_N)

        end = (int(place_B.max()) // self._seq_len + 1) * self._seq_len
        key_N = latent_N * end + place_N
        strongest = _find_largest_per_key(key_N // self._seq_len, value_N.abs())
        candidates = _rank_per_latent(latent_N[strongest], value_N[strongest], place_N[strongest], self._examples)
        latent_L, value_LE, place_LE = candidates
        value_LE = torch.cat([self.value[latent_L], value_LE.to(self.value.dtype)], dim=1)
        place_LE = torch.cat([self.place[latent_L], place_LE], dim=1)
        chosen_LE = value_LE.abs().topk(self._examples, dim=1).indices
        self.value[latent_L] = value_LE.gather(1, chosen_LE)
        self.place[latent_L] = place_LE = place_LE.gather(1, chosen_LE)

        is_new_LE = (chosen_LE >= self._examples) & (place_LE >= 0)
        changed_L = is_new_LE.any(1)
        latent_L, is_new_LE, chosen_LE = latent_L[changed_L], is_new_LE[changed_L], chosen_LE[changed_L]
        earlier_LEW = (chosen_LE % self._examples).unsqueeze(2).expand(-1, -1, len(self._offset_W))
        around_LEW = self.around[latent_L].gather(1, earlier_LEW)
        around_LEW[chosen_LE >= self._examples] = 0
        latent_Q1 = latent_L.unsqueeze(1).expand_as(is_new_LE)[is_new_LE].unsqueeze(1)
        around_LEW[is_new_LE] = self._read_around(key_N, value_N, latent_Q1, place_LE[changed_L][is_new_LE], end)
        self.around[latent_L] = around_LEW

    def _read_around(self, key_N: Tensor, value_N: Tensor, latent_Q1: Tensor, place_Q: Tensor, end: int) -> Tensor:
        """Return the values (Q, W) of a latent on the tokens around each of Q places; 0 outside of the sequence.

        key_N: of each entry of the batch, latent x `end` + index of the token in the text
        """
        place_QW = place_Q.unsqueeze(1) + self._offset_W
        is_inside_QW = place_QW // self._seq_len == place_Q.unsqueeze(1) // self._seq_len
        sorted_N, order_N = key_N.sort()
        wanted_QW = latent_Q1 * end + place_QW
        found_QW = torch.searchsorted(sorted_N, wanted_QW).clamp(max=len(sorted_N) - 1)
        is_active_QW = is_inside_QW & (sorted_N[found_QW] == wanted_QW)
        return torch.where(is_active_QW, value_N[order_N[found_QW]], 0).to(self.around.dtype)


def _rank_per_latent(latent_N: Tensor, value_N: Tensor, place_N: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the L distinct latents, and the value and place, (L, most), of each one's largest entries by magnitude.

    Where a latent has fewer entries, the value is 0 and the place -1.
    """
    order = _sort_by_key(latent_N, value_N.abs())
    latent_L, start_L, run_N = _find_runs(latent_N[order])
    rank_N = torch.arange(len(order), device=order.device) - start_L[run_N]
    best_N = rank_N < most
    value_LE = value_N.new_zeros(len(latent_L), most)
    place_LE = place_N.new_full(value_LE.shape, -1)
    value_LE[run_N[best_N], rank_N[best_N]] = value_N[order[best_N]]
    place_LE[run_N[best_N], rank_N[best_N]] = place_N[order[best_N]]
    return latent_L, value_LE, place_LE


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
