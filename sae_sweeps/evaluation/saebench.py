"""SAEBench's core metrics of several SAEs at one hook, on one pass of the language model.

The model reads each batch once as it is and once with zeros at the hook, whatever the number of SAEs; each SAE adds one
pass with its reconstructions, of the layers above the hook alone where that gives the same.
"""

# N sequences, n of a batch or a part of it, S positions, M positions that count, D model width, V vocabulary

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sae_sweeps.activations.finite import require_finite
from sae_sweeps.activations.held_out import starts_at_hook
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.predictions import sum_kl_divergence, to_log_probabilities
from sae_sweeps.evaluation.ratios import CE_ROUNDING, divide
from sae_sweeps.evaluation.saebench_sums import Metrics, TextSums
from sae_sweeps.evaluation.saebench_weights import measure_weights, summarise_latents
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.saes import InferenceSAE


@dataclass(frozen=True)
class CoreSettings:
    """How much text is measured, and how: see `SAEBenchConfig`."""

    reconstruction_batches: int
    sparsity_batches: int
    batch_sequences: int
    exclude_special_tokens: bool

    @property
    def sequences(self) -> int:
        """Return the number of sequences of all batches."""
        return max(self.reconstruction_batches, self.sparsity_batches) * self.batch_sequences

    def fit(self, sequences: int) -> "CoreSettings":
        """Return the settings for a text of so many sequences: whole batches, or one of all if it has fewer."""
        size = min(self.batch_sequences, sequences)
        batches = sequences // size
        reconstruction = min(self.reconstruction_batches, batches)
        return CoreSettings(reconstruction, min(self.sparsity_batches, batches), size, self.exclude_special_tokens)


class Core(NamedTuple):
    """SAEBench's core metrics of one SAE.

    metrics: by name, and this project's `nmse` and `fvu` on the same activations; None where one has no value
    latents: metric -> its value for each latent, NaN where it has none
    """

    metrics: Metrics
    latents: dict[str, list[float]]


@dataclass
class _Predictions:
    """Sums over predictions with the activations as they are, with zeros (ablation), and with each SAE."""

    kl_positions: int = 0
    ce_positions: int = 0
    ce_without: float = 0.0
    kl_ablation: float = 0.0
    ce_ablation: float = 0.0
    kl: dict[str, float] = field(default_factory=dict)  # name of the SAE -> sum
    ce: dict[str, float] = field(default_factory=dict)


class _Part(NamedTuple):
    """Part of a batch that the model reads at a time."""

    tokens_nS: Tensor
    counts_nS: Tensor  # which positions count


class CoreMeasurement:
    """Measures SAEs on batches of sequences."""

    def __init__(
        self,
        model: LanguageModel,
        saes: Mapping[str, InferenceSAE],
        ignored: Collection[int],
        settings: CoreSettings,
        from_hook: bool,
    ) -> None:
        """Begin with no text.

        saes: by name, all of the model's hook
        ignored: ids of the tokens whose positions do not count
        from_hook: whether the model can resume at the hook (see `LanguageModel.cross_entropy`)
        """
        self._model, self._saes, self._settings, self._from_hook = model, saes, settings, from_hook
        self._ignored = torch.tensor(sorted(ignored), dtype=torch.int64, device=model.device)
        self._sums = {name: TextSums(sae) for name, sae in saes.items()}
        self._predictions = _Predictions(kl=dict.fromkeys(saes, 0.0), ce=dict.fromkeys(saes, 0.0))

    @torch.no_grad()
    def add(self, tokens_nS: Tensor, number: int) -> None:
        """Add the batch with a number, from 0. Raises: ConfigError if an activation is not finite."""
        tokens_nS = tokens_nS.to(self._model.device)
        counts_nS = ~torch.isin(tokens_nS, self._ignored)
        compares = number < self._settings.reconstruction_batches
        sums = self._sums if number < self._settings.sparsity_batches else {}
        at_once = max(1, self._model.logits_at_once // tokens_nS.shape[1]) if compares else len(tokens_nS)
        parts = map(_Part, tokens_nS.split(at_once), counts_nS.split(at_once))
        x_MD: list[Tensor] = []
        recon_MD: dict[str, list[Tensor]] = {name: [] for name in self._saes}
        for part in parts:
            acts_nSD, log_p_MV = self._read(part, compares)
            x_MD.append(acts_nSD[part.counts_nS])
            for name, sae in self._saes.items():
                recon_nSD = self._sums[name].encode(acts_nSD, part.counts_nS) if name in sums else sae(acts_nSD)
                recon_MD[name].append(recon_nSD[part.counts_nS])
                if log_p_MV is not None:
                    kl, ce = self._compare(part, log_p_MV, self._choose(part, recon_nSD, acts_nSD))
                    self._predictions.kl[name] += kl
                    self._predictions.ce[name] += ce
        if counts_nS.any():
            for name, one in sums.items():
                one.add_batch(torch.cat(x_MD), torch.cat(recon_MD[name]))

    def _read(self, part: _Part, compares: bool) -> tuple[Tensor, Tensor | None]:
        """Return the activations (n, S, D) and, if predictions are compared, their log-probabilities (M, V).

        Then the predictions without the SAE and under ablation are added.
        """
        if not compares:
            acts_nSD = self._model.activations(part.tokens_nS).float()
            require_finite(self._model.config, acts_nSD[part.counts_nS], "held-out activations")
            return acts_nSD, None
        read = []

        def keep(acts_nSD: Tensor) -> Tensor:
            read.append(acts_nSD.clone())
            return acts_nSD

        logits_nSV = self._model.logits(part.tokens_nS, keep)
        (acts_nSD,) = read
        require_finite(self._model.config, acts_nSD[part.counts_nS], "held-out activations")
        log_p_MV = to_log_probabilities(logits_nSV[part.counts_nS])
        del logits_nSV
        found = self._predictions
        found.kl_positions += len(log_p_MV)
        found.ce_positions += int(part.counts_nS[:, :-1].sum())
        found.ce_without += _sum_cross_entropy(log_p_MV, part)
        kl, ce = self._compare(part, log_p_MV, torch.zeros_like(acts_nSD))
        found.kl_ablation += kl
        found.ce_ablation += ce
        return acts_nSD, log_p_MV

    def _choose(self, part: _Part, recon_nSD: Tensor, acts_nSD: Tensor) -> Tensor:
        """Return what the model continues with: the reconstructions, at all positions or at those that count."""
        if not self._settings.exclude_special_tokens:
            return recon_nSD
        return torch.where(part.counts_nS[..., None], recon_nSD, acts_nSD)

    def _compare(self, part: _Part, log_p_MV: Tensor, replaced_nSD: Tensor) -> tuple[float, float]:
        """Return the sums of the KL divergence and the cross-entropy with other activations at the hook, in nats."""
        logits_nSV = self._model.logits(part.tokens_nS, lambda acts: replaced_nSD, from_hook=self._from_hook)
        log_q_MV = to_log_probabilities(logits_nSV[part.counts_nS])
        del logits_nSV
        ce = _sum_cross_entropy(log_q_MV, part)
        return sum_kl_divergence(log_p_MV, log_q_MV), ce

    def compute(self, name: str) -> Core:
        """Return the metrics of the SAE with a name."""
        found = self._predictions
        ce, ablated = found.ce[name], found.ce_ablation
        without, positions = found.ce_without, found.ce_positions
        behavior = {
            "kl_div_score": divide(found.kl_ablation - found.kl[name], found.kl_ablation),
            "kl_div_with_ablation": divide(found.kl_ablation, found.kl_positions),
            "kl_div_with_sae": divide(found.kl[name], found.kl_positions),
            "ce_loss_score": divide(ablated - ce, ablated - without, CE_ROUNDING * abs(without)),
            "ce_loss_with_ablation": divide(ablated, positions),
            "ce_loss_with_sae": divide(ce, positions),
            "ce_loss_without_sae": divide(without, positions),
        }
        latents = self._sums[name].compute_latents() | measure_weights(self._saes[name])
        metrics = {**behavior, **self._sums[name].compute_metrics(), **summarise_latents(latents)}
        return Core(metrics, latents)


def _sum_cross_entropy(log_q_MV: Tensor, part: _Part) -> float:
    """Return the sum of the cross-entropies, in nats, of the next tokens of the positions that count, but the last."""
    counted_nS, target_nS = part.counts_nS, part.tokens_nS.roll(-1, 1)
    is_last_nS = torch.zeros_like(counted_nS)
    is_last_nS[:, -1] = True
    has_next_M = ~is_last_nS[counted_nS]
    each_M = log_q_MV.gather(1, target_nS[counted_nS][:, None]).squeeze(1)
    return -each_M[has_next_M].double().sum().item()


def measure_core(
    model: LanguageModel,
    saes: Mapping[str, InferenceSAE],
    tokens_NS: Tensor,
    settings: CoreSettings,
    on_progress: OnProgress | None = None,
) -> dict[str, Core]:
    """Return SAEBench's core metrics of SAEs at the model's hook, by name, on token sequences.

    tokens_NS: sequences that start with BOS, as many as the settings have (`CoreSettings.fit`)
    on_progress: called with the number of batches that are done, and of all
    Raises: ConfigError if an activation is not finite.
    """
    measurement = CoreMeasurement(model, saes, find_ignored(model), settings, starts_at_hook(model, tokens_NS))
    batches = tokens_NS[: settings.sequences].split(settings.batch_sequences)
    for number, tokens_nS in enumerate(batches):
        measurement.add(tokens_nS, number)
        if on_progress is not None:
            on_progress(number + 1, len(batches))
    return {name: measurement.compute(name) for name in saes}


def find_ignored(model: LanguageModel) -> set[int]:
    """Return the ids of the tokens whose positions SAEBench does not count: BOS, end of text and padding."""
    ids = (model.bos, model.eos, model.tokenizer.pad_token_id)
    return {token for token in ids if token is not None}
