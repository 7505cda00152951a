"""The content of results.json of a point."""

from dataclasses import asdict
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.evaluation.ratios import explain_missing
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.training.trainer import Trainer


def describe_results(
    config: Config, trainer: Trainer, metrics: dict[str, float | None], seconds: float | None, left_out: int = 0
) -> dict[str, Any]:
    """Return the content of results.json: the point, the metrics, the training speed, the configuration, the versions.

    seconds: time of the training steps of this point, summed over all processes that trained it; None if lines of the
        curve, which has the times, are missing
    left_out: positions of the training text that were left out because of their token
    """
    return {
        "point": {
            "architecture": trainer.sae.architecture,
            "dict_size": config.dict_size,
            "k": config.k,
            "seed": config.seed,
            "model": config.model.name,
            "hook": config.model.hook,
        },
        "metrics": metrics,
        "missing": explain_missing(metrics),
        "training": {
            "tokens": trainer.tokens_done,
            "steps": trainer.steps_done,
            "left_out": left_out,
            "seconds": seconds,
            "tokens_per_second": trainer.tokens_done / seconds if seconds else None,
        },
        "config": asdict(config),
        "provenance": provenance(),
    }
