"""The table of metrics: title, number format, and whether low or high is better. evaluate.py computes the values."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sae_sweeps.runtime.records import matches


@dataclass(frozen=True)
class Metric:
    """The title, unit and number format of a metric that `evaluate` returns."""

    name: str  # key in results.json
    title: str
    unit: str  # "nats", "%" for a share that is shown in per cent, or "" for none
    decimals: int  # decimals of the stored value; in per cent, two fewer are shown
    best: str | None  # "min", "max", or None where neither is better
    explained: str  # what the metric measures, a tooltip in the report
    column: str | None = None  # title in the tables on a terminal and in Markdown; None leaves out the metric there
    is_optional: bool = False  # whether pages and cards leave it out where no SAE has it
    is_detail: bool = False  # whether they always leave it out: results.json and results.csv have it

    def text(self, value: float | None) -> str:
        """Return `value` as text, with the unit's per cent sign; a dash if it is None or not finite."""
        if value is None or not math.isfinite(value):
            return "–"  # noqa: RUF001  a dash that means "no value"
        return f"{value:.{self.decimals - 2}%}" if self.unit == "%" else f"{value:.{self.decimals}f}"


TEXT = "_text"  # end of the names of metrics over the text alone, where special tokens count as data
_optional = partial(Metric, is_optional=True)
_detail = partial(Metric, is_optional=True, is_detail=True)

NMSE = "squared error divided by the variance of the activation, mean over activations"
RISE = "1: the cross-entropy does not rise; 0: it rises as much as with activations replaced by"
KL = "divergence of the model's predictions from those with the reconstruction in place of the activation"
TOP = "share of the total variance that the 1 % of the activations farthest from the mean hold; they decide the FVU"
AT_K = "with all thresholds moved together so that L0 is k"
SHIFT = "shift of all encoder biases that gives an L0 of k, in norms of the encoder's rows"
IN_BATCHES = "with the k x B largest latents of each batch active, as in training, in place of the threshold"

MATCHED = "assigned one to one (Hungarian method)"
FIRING = "the firing of a latent as a prediction of its planted feature's, mean over features"

# in the order of the columns of all tables
_METRICS = (
    Metric("nmse", "NMSE", "", 4, "min", NMSE, "NMSE"),
    Metric("l0", "L0", "", 1, None, "mean number of active latents per activation", "L0"),
    Metric(
        "dead_fraction", "dead latents", "%", 3, "min", "latents active on none of the held-out activations", "dead"
    ),
    Metric("ce_degradation", "CE degradation", "nats", 4, "min", "cross-entropy increase per token", "CE +nats"),
    Metric("ce_recovered_mean", "CE recovered (mean)", "", 4, "max", f"{RISE} the mean", "CE rec. (mean)"),
    Metric("ce_recovered_zero", "CE recovered (zero)", "", 4, "max", f"{RISE} zeros"),
    _optional("kl_divergence", "KL divergence", "nats", 4, "min", KL),
    Metric("fvu", "FVU", "", 4, "min", "total squared error divided by the total variance of the activations"),
    Metric("top_variance_share", "variance in 1 %", "%", 3, None, TOP),
    _optional("nmse_at_k", "NMSE at k", "", 4, "min", f"NMSE {AT_K}"),
    _optional("ce_degradation_at_k", "CE degradation at k", "nats", 4, "min", f"cross-entropy increase {AT_K}"),
    _detail("l0_at_k", "L0 at k", "", 2, None, f"L0 {AT_K}"),
    _detail("threshold_factor", "threshold factor", "", 3, None, "factor on all thresholds that gives an L0 of k"),
    _detail("bias_shift", "bias shift", "", 3, None, SHIFT),
    _optional("nmse_batch", "NMSE in batches", "", 4, "min", f"NMSE {IN_BATCHES}"),
    _detail("l0_batch", "L0 in batches", "", 1, None, f"L0 {IN_BATCHES}"),
    _optional(
        "mcc", "MCC", "", 4, "max", f"mean absolute cosine of planted features with their latents, {MATCHED}", "MCC"
    ),
    _optional("feature_f1", "F1", "", 4, "max", f"F1 of {FIRING}", "F1"),
    _optional("feature_precision", "precision", "", 4, "max", f"precision of {FIRING}"),
    _optional("feature_recall", "recall", "", 4, "max", f"recall of {FIRING}"),
    _optional("mmcs", "max cosine", "", 4, "max", "largest absolute cosine with a latent, mean over planted features"),
    _detail("features_seen", "features seen", "", 0, None, "planted features that are active in held-out activations"),
    _detail("planted_l0", "planted L0", "", 1, None, "mean number of planted features per held-out activation"),
)
_TEXT_METRICS = [
    replace(
        metric,
        name=f"{metric.name}{TEXT}",
        title=f"{metric.title}, text",
        explained=f"{metric.explained}; over the text alone, without BOS and other special tokens",
        column=None,
        is_optional=True,
    )
    for metric in _METRICS
]
METRICS = {metric.name: metric for metric in (*_METRICS, *_TEXT_METRICS)}
BAD_CE = 6.0  # nats per token from which on a remark says that the model predicts the text badly
INTERVALS_SHAPE = {"metrics": {str: {"low": float, "high": float}}}  # of the entry `intervals` of results.json
OFF_K = 0.005  # relative difference of L0 from k from which on metrics "at k" are of another L0
CONCENTRATED = 0.5  # share of the variance from which on 1 % of the activations count as deciding the FVU
COLUMNS = {metric.name: metric.column for metric in METRICS.values() if metric.column is not None}
PLANTED = ("mcc", "mmcs", "feature_f1", "feature_precision", "feature_recall", "features_seen", "planted_l0")
PREDICTIONS = ("ce_", "kl_")  # starts of the names of metrics that take the language model


def read_intervals(entry: Any) -> dict[str, tuple[float, float]]:
    """Return the ends of the interval of each metric, by name; empty if there are none.

    entry: `intervals` of results.json, which earlier versions do not have
    """
    found = entry["metrics"] if matches(entry, INTERVALS_SHAPE) else {}
    return {name: (ends["low"], ends["high"]) for name, ends in found.items()}


def list_bounds(entry: Any) -> dict[str, float]:
    """Return the ends of intervals as columns of a table, such as nmse_low and nmse_high. `entry`: as above"""
    ends = read_intervals(entry).items()
    return {f"{name}_{end}": value for name, both in ends for end, value in zip(("low", "high"), both, strict=True)}


def choose_metrics(found: Iterable[Mapping[str, Any]]) -> list[Metric]:
    """Return the metrics to show for SAEs with these values, without details.

    An optional one only if an SAE has it; those of a language model's predictions unless no SAE with values has one.
    """
    known = {name for values in found for name, value in values.items() if value is not None}
    left_out = PREDICTIONS if known and not any(name.startswith(PREDICTIONS) for name in known) else ()
    shown = [metric for metric in METRICS.values() if not metric.is_detail]
    return [
        metric
        for metric in shown
        if metric.name in known or not (metric.is_optional or metric.name.startswith(left_out))
    ]


def choose_columns(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns of a table of SAEs with these values, on a terminal or in Markdown: metric -> title."""
    return {metric.name: COLUMNS[metric.name] for metric in choose_metrics(found) if metric.name in COLUMNS}


def is_of_planted(name: str) -> bool:
    """Return whether a metric is of planted features, which only synthetic activations have."""
    return name in PLANTED


def find_concentration(metrics: Mapping[str, float | None]) -> str | None:
    """Return a sentence if the 1 % of the activations farthest from the mean hold most of the variance, else None."""
    share = metrics.get("top_variance_share")
    if share is None or share < CONCENTRATED:
        return None
    fvu = METRICS["fvu"].text(metrics.get("fvu"))
    decided = f"1 % of the activations hold {share:.0%} of the variance, so they decide the FVU of {fvu}"
    return f"{decided}. The NMSE counts all activations alike"


def is_worse_than_mean(metrics: Mapping[str, Any]) -> bool:
    """Return whether the NMSE is 1 or more: reconstructing each activation as the mean of its entries is as good."""
    nmse = metrics.get("nmse")
    return nmse is not None and nmse >= 1


def remark_on(metrics: Mapping[str, Any]) -> str | None:
    """Return a remark on metrics that suggest that an SAE is not of these activations; None if there is none."""
    if not is_worse_than_mean(metrics):
        return None
    return (
        f"NMSE {metrics['nmse']:.3g}: worse than the mean of each activation's entries as its reconstruction; did the "
        "training diverge, or is the SAE of another model, hook or normalisation?"
    )


def remark_on_sparsity(metrics: Mapping[str, Any], k: int | None) -> str | None:
    """Return a remark if an SAE has no L0 of k on held-out text, whatever its threshold; None if it has."""
    l0 = metrics.get("l0_at_k")
    if l0 is None or k is None or abs(l0 - k) <= OFF_K * k:
        return None
    return f"L0 is {l0:.4g} at best, not k = {k}: too few latents have a positive pre-activation on some activations"


def remark_on_model(metrics: Mapping[str, Any]) -> str | None:
    """Return a remark if the language model predicts the held-out text badly without any SAE; None if it does not."""
    ce = metrics.get("ce_model")
    if ce is None or not ce >= BAD_CE:
        return None
    return (
        f"The model predicts this text badly: its own cross entropy is {ce:.2f} nats per token (perplexity "
        f"{math.exp(min(ce, 700)):,.0f}). CE degradation and recovered CE mean little here; is the text of the kind, "
        "and from the tokenizer, that the model was trained on?"
    )
