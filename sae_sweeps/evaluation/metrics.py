"""The table of metrics: their titles, formats and which end is better. evaluate.py computes them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric in the results of a point: how it is shown."""

    name: str  # key in results.json
    title: str
    unit: str  # "nats", "%" for a share that is shown in per cent, or "" for none
    decimals: int  # of the value as stored: a share shows two less in per cent
    best: str | None  # "min", "max", or None where neither is better
    explained: str
    column: str | None = None  # title in the tables on a terminal and in Markdown; None leaves it out of them

    def text(self, value: float | None) -> str:
        """Return the value as text with its decimals; a dash if it is missing or not finite."""
        if value is None or not math.isfinite(value):
            return "–"  # noqa: RUF001  a dash that is read as "none"
        return f"{value:.{self.decimals - 2}%}" if self.unit == "%" else f"{value:.{self.decimals}f}"


NMSE = "squared error over the activation's variance, mean over activations"
RISE = "1: no rise of the cross-entropy; 0: the rise with activations replaced by"

# in the order of the columns of all tables
METRICS = {
    metric.name: metric
    for metric in (
        Metric("nmse", "NMSE", "", 4, "min", NMSE, "NMSE"),
        Metric("l0", "L0", "", 1, None, "mean number of active latents per activation", "L0"),
        Metric("dead_fraction", "dead latents", "%", 3, "min", "latents active on no held-out activation", "dead"),
        Metric("ce_degradation", "CE degradation", "nats", 4, "min", "cross-entropy added, per token", "CE +nats"),
        Metric("ce_recovered_mean", "CE recovered (mean)", "", 4, "max", f"{RISE} the mean", "CE rec. (mean)"),
        Metric("ce_recovered_zero", "CE recovered (zero)", "", 4, "max", f"{RISE} zeros"),
        Metric("fvu", "FVU", "", 4, "min", "total squared error over the total variance of the activations"),
    )
}
COLUMNS = {metric.name: metric.column for metric in METRICS.values() if metric.column is not None}
