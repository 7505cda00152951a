"""Metrics of an SAE on held-out text: reconstruction, sparsity, and the language model's predictions."""

# N sequences, S positions, A held-out activations, D model width

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast, overload

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.predictions import Losses
from sae_sweeps.evaluation.equal_l0 import EqualL0, measure_equal_l0
from sae_sweeps.evaluation.metrics import TEXT
from sae_sweeps.evaluation.ratios import CE_ROUNDING, divide
from sae_sweeps.evaluation.reconstruction import Reconstruction, measure_variance, reconstruct
from sae_sweeps.evaluation.recovery import measure_recovery
from sae_sweeps.evaluation.sparsity import describe_sparsity
from sae_sweeps.evaluation.unit_sums import UnitSums, sum_by_unit
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import check_names, describe, require_type, require_whole, to_activations
from sae_sweeps.saes import SAE, Activations, InferenceSAE, TrainableSAE
from sae_sweeps.saes.levels import Levels

# order of the metrics, in results.json as well
ORDER = (
    "nmse", "fvu", "top_variance_share", "l0", "dead_fraction", "ce_degradation", "ce_recovered_zero",
    "ce_recovered_mean", "kl_divergence", "ce_model", "ce_reconstruction", "held_out_tokens", "held_out_left_out",
    "without_spread",
    "nmse_at_k", "l0_at_k", "l0_at_k_error", "ce_degradation_at_k", "threshold_factor", "bias_shift",
    "nmse_batch", "l0_batch", "mcc", "mmcs", "feature_f1", "feature_precision", "feature_recall", "features_seen",
    "planted_l0",
)  # fmt: skip
BATCH_SIZE = 4096  # activations in a batch of training, the papers' value
LOAD = "load_sae(FOLDER), or make a BatchTopKSAE, TopKSAE, JumpReLUSAE, ..."
BOTH = "evaluate(sae, stream.model, stream.held_out()), or evaluate(sae, acts) for the metrics without a language model"

Metrics: TypeAlias = dict[str, float | None]


class Evaluation(NamedTuple):
    """What `evaluate_whole` returns.

    metrics: those of `evaluate`
    sparsity: numbers of active latents, as results.json has them
    sums: of each document; None if the documents are not known
    """

    metrics: Metrics
    sparsity: dict[str, Any]
    sums: UnitSums | None


class _Measured(NamedTuple):
    metrics: Metrics
    active_A: Tensor  # number of active latents of each activation
    sums: UnitSums | None


@overload
def evaluate(
    sae: SAE, model: Activations | HeldOut, *, k: int | None = None, batch_size: int = BATCH_SIZE
) -> Metrics: ...


@overload
def evaluate(
    sae: SAE, model: LanguageModel | None, data: HeldOut, *, k: int | None = None, batch_size: int = BATCH_SIZE
) -> Metrics: ...


@overload
def evaluate(
    sae: SAE,
    model: None = None,
    *,
    data: Activations | HeldOut,
    k: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Metrics: ...


@check_names
@torch.no_grad()
def evaluate(
    sae: SAE,
    model: LanguageModel | Activations | HeldOut | None = None,
    data: Activations | HeldOut | None = None,
    *,
    k: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Metrics:
    """Return the metrics of an SAE on held-out activations x with reconstructions x_hat, by name.

    evaluate(sae, acts): of any activations (A, D) of the SAE's hook, without a language model and without `ce_...`
    evaluate(sae, model, data): with the language model; `data` is what `stream.held_out()` returns
    k: the L0 at which SAEs are compared; None: that of an SAE in training, or of a TopK SAE
    batch_size: activations in a batch of training, for `nmse_batch` and `l0_batch`

    nmse: mean over activations of |x - x_hat|^2 / |x - mean_D(x)|^2 (arXiv:2502.04878); mean_D is over the entries of
        x. Activations without spread, whose entries are all equal, are left out
    fvu: sum |x - x_hat|^2 / sum |x - mean_A(x)|^2, also known as 1 - explained variance; mean_A is over activations
    l0: mean number of active latents per activation, with the selection used at inference
    dead_fraction: share of latents that are active on none of the held-out activations
    ce_degradation: increase of the model's cross-entropy, in nats per token, when reconstructions replace activations
    ce_recovered_zero, ce_recovered_mean: 1 for no increase, 0 for the increase under zero or mean ablation
    ce_model, ce_reconstruction: the model's cross-entropy, in nats per token, without and with the reconstructions
    kl_divergence: sum over the vocabulary of p log(p / q), in nats, mean over predictions: of the model's probabilities
        without the reconstructions, p, from those with them, q
    top_variance_share: share of sum |x - mean_A(x)|^2 that the 1 % of the activations farthest from mean_A(x) hold
    held_out_tokens: number of held-out activations
    held_out_left_out: number of held-out positions left out because of their token (dataset.exclude)
    without_spread: number of activations without spread, which `nmse` leaves out

    With a k, unless it is that of a TopK SAE, which has the same metrics at k:
    nmse_at_k, ce_degradation_at_k: at an L0 of k, by one factor on all thresholds (or one shift of all biases; see
        saes/levels.py). The factor is found on one half of the activations and used on the other, each half in turn
    l0_at_k: L0 at these factors, which differs from k if an activation has too few positive pre-activations
    l0_at_k_error: how far L0 is from k on a half, mean over both: the sampling error of a factor found on other text
    threshold_factor, bias_shift: mean of both factors, or of both shifts, in norms of the encoder's rows
    nmse_batch, l0_batch: if all latents have one threshold, with the k x B largest pre-activations of each random batch
        in its place, as in training (arXiv:2412.06410)

    Of synthetic activations, those of planted features (recovery.py): mcc, mmcs, feature_f1, feature_precision,
    feature_recall, features_seen and planted_l0. Nothing with `ce_` or `kl_` is measured there.

    Where special tokens count as data (`dataset.exclude`), names that end in `_text` are of the text alone.
    A ratio is None where there is nothing to divide by (ratios.py). An SAE in training is evaluated as it is saved.
    Raises: ConfigError if an argument is of another type, or activations are not finite or of another shape.
    """
    model, data = _check_arguments(sae, model, data)
    k = getattr(sae, "k", None) if k is None else require_whole("k", k, 1, sae.dict_size, "dict_size=")
    batch_size = require_whole("batch_size", batch_size, 1)
    return _measure(sae.for_inference() if isinstance(sae, TrainableSAE) else sae, model, data, k, batch_size).metrics


@torch.no_grad()
def evaluate_whole(
    sae: SAE, model: LanguageModel | None, data: HeldOut, *, k: int | None, batch_size: int
) -> Evaluation:
    """Return the metrics of a saved SAE as `evaluate` does, its numbers of active latents, and the sums by document.

    Raises: ConfigError as `evaluate` does.
    """
    found = _measure(sae, model, data, k, batch_size)
    return Evaluation(found.metrics, describe_sparsity(sae, data, found.active_A), found.sums)


def _measure(
    sae: SAE, model: LanguageModel | None, data: Activations | HeldOut, k: int | None, batch_size: int
) -> _Measured:
    """Return the metrics of `evaluate`, and what they are made of."""
    acts_AD = _get_activations(sae, data)
    found = _reconstruct(sae, acts_AD, k, batch_size)
    metrics, sums = {**_describe(acts_AD, found.own), **found.metrics}, None
    if isinstance(data, HeldOut):
        metrics["held_out_left_out"] = data.left_out
        losses = [] if model is None else _compare(model, data, found)
        if model is not None:
            metrics |= _describe_predictions(data, found, losses)
        if data.truth is not None:
            metrics |= measure_recovery(sae, acts_AD, data.truth)
        if model is not None or data.truth is not None:
            sums = sum_by_unit(data, found, losses)
    metrics, active_A = {name: metrics[name] for name in ORDER if name in metrics}, found.own.active_A
    if isinstance(data, HeldOut) and data.text is not None:
        del found, acts_AD  # before those of the text take as much memory
        on_text = _measure(sae, model, data.text, k, batch_size).metrics
        metrics |= {f"{name}{TEXT}": value for name, value in on_text.items() if name != "held_out_left_out"}
    return _Measured(metrics, active_A, sums)


def _get_activations(sae: SAE, data: Activations | HeldOut) -> Tensor:
    """Return the activations (A, D) as the SAE takes them. Raises: ConfigError if it cannot."""
    return to_activations("acts", data, sae.d_in, device=sae.W_dec.device, dtype=sae.W_dec.dtype)


def _check_arguments(
    sae: SAE, model: LanguageModel | Activations | HeldOut | None, data: Activations | HeldOut | None
) -> tuple[LanguageModel | None, Activations | HeldOut]:
    """Return the language model and the data, whichever way they are given.

    Raises: ConfigError if an argument is of another type, or activations are not finite or of another shape.
    """
    require_type("sae", sae, SAE, "an SAE", LOAD)
    if data is None:
        model, data = None, model
    if model is not None and not hasattr(model, "cross_entropy"):
        raise ConfigError("model", describe(model), "must be a language model, and `data` what it was run on", BOTH)
    if data is None or not isinstance(data, HeldOut if model is not None else HeldOut | Activations):
        raise ConfigError("data", describe(data), "must be activations, those of held_out() with a model", BOTH)
    if len(_get_activations(sae, data)) == 0:
        raise ConfigError("acts", 0, "there must be at least one activation", "give some thousands of activations")
    return cast(LanguageModel | None, model), data


def _reconstruct(sae: SAE, acts_AD: Tensor, k: int | None, batch_size: int) -> EqualL0:
    """Reconstruct activations with the SAE as it is, and at an L0 of k if it has thresholds, or is a TopK SAE of k."""
    if k is not None and isinstance(sae, InferenceSAE):
        levels = Levels.from_sae(sae)
        if levels is not None and len(acts_AD) > 1:
            return measure_equal_l0(levels, acts_AD, k, batch_size)
    own = reconstruct(sae, acts_AD)
    if k is None or getattr(sae, "k", None) != k:
        return EqualL0(own, None, {})
    return EqualL0(own, own, {"nmse_at_k": own.nmse, "l0_at_k": own.l0})


def _compare(model: LanguageModel, data: HeldOut, found: EqualL0) -> list[Losses]:
    """Return the losses of the model's predictions with the SAE as it is, and at an L0 of k if that differs."""
    differing = [found.own]  # TopK has the same at k
    if found.at_k is not None and found.at_k is not found.own:
        differing.append(found.at_k)
    return data.compare(model, [one.recon_AD for one in differing])


def _describe_predictions(data: HeldOut, found: EqualL0, losses: Sequence[Losses]) -> Metrics:
    """Return the metrics of `evaluate` that need the language model. `losses`: those of `_compare`"""
    ce, rounding = losses[0].cross_entropy, CE_ROUNDING * data.ce
    metrics = {
        "ce_degradation": ce - data.ce,
        "ce_recovered_zero": divide(data.ce_zero - ce, data.ce_zero - data.ce, rounding),
        "ce_recovered_mean": divide(data.ce_mean - ce, data.ce_mean - data.ce, rounding),
        "ce_model": data.ce,
        "ce_reconstruction": ce,
        "kl_divergence": losses[0].kl_divergence,
    }
    if found.at_k is not None:
        metrics["ce_degradation_at_k"] = losses[-1].cross_entropy - data.ce
    elif "nmse_at_k" in found.metrics:
        metrics["ce_degradation_at_k"] = None
    return metrics


def _describe(acts_AD: Tensor, own: Reconstruction) -> Metrics:
    """Return the metrics of the SAE as it is that need no language model."""
    return {
        "nmse": own.nmse,
        **measure_variance(acts_AD, own.recon_AD),
        "l0": own.l0,
        "dead_fraction": 1 - own.fired_F.float().mean().item(),
        "held_out_tokens": len(acts_AD),
        "without_spread": own.without_spread,
    }
