"""The table of metrics."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number in a point's results."""

    name: str
    title: str
    unit: str
    decimals: int
    best: str | None  # "min", "max", or None where neither is better
    explained: str

    def text(self, value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "–"  # noqa: RUF001  a dash that is read as "none"
        return f"{value:.{self.decimals - 2}%}" if self.unit == "%" else f"{value:.{self.decimals}f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("nmse", "NMSE", "", 4, "min", "error over the variance of the activation, the mean over activations"),
        Metric("ce_degradation", "CE degradation", "nats", 4, "min", "what the language model loses, per token"),
        Metric("ce_recovered_mean", "CE recovered (mean)", "", 4, "max", "1: no loss; 0: that of the mean activation"),
        Metric("ce_recovered_zero", "CE recovered (zero)", "", 4, "max", "1: no loss; 0: that of zero"),
        Metric("l0", "L0", "", 1, None, "latents that are active on an activation, on average"),
        Metric("dead_fraction", "dead latents", "%", 3, "min", "latents that are active on no held-out activation"),
        Metric("fvu", "FVU", "", 4, "min", "sum of squared errors over that of the activations less their mean"),
    )
}
