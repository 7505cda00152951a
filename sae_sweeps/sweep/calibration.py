"""How fast earlier runs were, for the hours of a plan: output_root/calibration.json, sums by device and model."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.activations.hooks import hook_layer
from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import Config
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.sweep.point import Point

log = logging.getLogger(__name__)

FILE = "calibration.json"
GUESSED_RATE = {"cpu": 1e11, "cuda": 5e12}  # multiply-adds per second in float32
GUESSED_SECONDS = {"pack": 60.0, "point": 10.0}  # to load model and text; to evaluate and write an SAE
PARTS = ("model", "steps", "pack", "point")


class Calibration:
    """Seconds per unit of work on the device that was used last, on this machine or (not `here`) in jobs.

    The units: a multiply-add of the language model below the hook (model) and of an encoder's product (steps), the
    beginning of a pack, and the evaluation of a point. For a model at a hook that has not run there, they are guesses.
    """

    def __init__(self, output_root: Path, *, here: bool) -> None:
        known = read_json(output_root / FILE) or {"latest": {}, "devices": {}}
        self.device = known["latest"].get(_where(here), "CPU" if here else "CUDA GPU")
        self._sums = known["devices"].get(self.device, {})

    @property
    def guessed_rate(self) -> float:
        """Multiply-adds per second, of a device on which the model has not run."""
        return GUESSED_RATE["cpu" if self.device.startswith("CPU") else "cuda"]

    def measured(self, config: Config) -> bool:
        """Whether the configuration's model has run at its hook."""
        return _key(config) in self._sums

    def seconds(self, pack: Sequence[Point], facts: ModelInfo) -> float:
        """How long a pack takes."""
        config, work = pack[0].config, measure_work(pack, facts)
        if self.measured(config):
            sums = self._sums[_key(config)]
            return sum(work[part] * sums[part]["seconds"] / sums[part]["work"] for part in PARTS)
        per_product = 1 / self.guessed_rate
        rates = {"model": per_product, "steps": per_product, **GUESSED_SECONDS}
        return sum(work[part] * rates[part] for part in PARTS)


def measure_work(pack: Sequence[Point], facts: ModelInfo) -> dict[str, float]:
    """The work that a pack takes, in the units of a calibration."""
    below = facts.weights(hook_layer(pack[0].config.model.hook) + 1)
    tokens = [point.config.training.tokens for point in pack]
    products = (point.config.dict_size * facts.d_model * point.config.training.tokens for point in pack)
    return {"model": max(tokens) * below, "steps": float(sum(products)), "pack": 1.0, "point": float(len(pack))}


def _where(here: bool) -> str:
    return "here" if here else "jobs"


def _key(config: Config) -> str:
    return f"{config.model.name} {config.model.hook}"


def record_run(
    pack: Sequence[Point], facts: ModelInfo, device: str, seconds: Mapping[str, float], *, here: bool
) -> None:
    """Add what a pack took on a device to its sums. That it cannot be written is no reason for anything to fail."""
    config, work = pack[0].config, measure_work(pack, facts)
    output_root = Path(config.output_root)
    file = output_root / FILE
    try:
        with FileLock(output_root / f".{FILE}.lock"):
            known: dict[str, Any] = read_json(file) or {"latest": {}, "devices": {}}
            sums = known["devices"].setdefault(device, {}).setdefault(_key(config), {})
            for part in PARTS:
                earlier = sums.get(part, {"work": 0.0, "seconds": 0.0})
                sums[part] = {"work": earlier["work"] + work[part], "seconds": earlier["seconds"] + seconds[part]}
            known["latest"][_where(here)] = device
            write_json(file, known)
    except OSError as error:
        log.warning("%s could not be written (%s)", file, describe_error(error))
