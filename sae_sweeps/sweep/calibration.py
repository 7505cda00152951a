"""Measured speed of earlier runs, from which a plan estimates hours: sums by device and model in calibration.json."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.activations.hooks import as_block_output, split_hook
from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import Config
from sae_sweeps.runtime.devices import GPU_DRIVER
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.records import matches, read_record, write_record
from sae_sweeps.sweep.point import Point

log = logging.getLogger(__name__)

FILE = "calibration.json"
# device type -> part -> multiply-adds per second, from benchmarks/results/. An H100 (nvidia-h100-80gb-hbm3-check.md): a
# step of BatchTopK with 24 576 latents, none dead; GPT-2 small in float32 with 32 sequences a batch. Two cores
# (amd-epyc-2-cores.md): a step with 12 288 latents in float32; the embedded model in sweeps of 3 points and more
GUESSED_RATE = {"cpu": {"steps": 8e10, "model": 3e10}, "cuda": {"steps": 1.2e13, "model": 1.2e13}}
UNKNOWN = {"cpu": "CPU", "cuda": "CUDA GPU"}  # device type -> how a device is named that has not run yet
GUESSED_SECONDS = {
    "pack": 60.0,  # seconds to load the model and the text
    "point": 10.0,  # seconds to evaluate and write one SAE
}
PARTS = ("model", "steps", "pack", "point")  # what a run spends its time on; class Calibration explains the units
_POSITIVE = lambda value: matches(value, float) and value > 1e-9  # noqa: E731
_SECONDS = lambda value: matches(value, float) and value >= 0  # noqa: E731
_SUMS = {"work": _POSITIVE, "seconds": _SECONDS}
SHAPE = {"latest": {str: str}, "devices": {str: {str: dict.fromkeys(PARTS, _SUMS)}}}


class Calibration:
    """Seconds per unit of work on the device used by the latest run: here (`is_local`) or in a Slurm job.

    If that is a CPU and the points will run on a GPU, or the other way round, nothing is known of their device.

    The units of work are a multiply-add of the language model up to the hook (model), a multiply-add of an SAE's
    encoder matmul (steps), the start of a pack (pack), and the evaluation of a point (point). For a model and hook that
    have not run on the device, the seconds are guesses.
    """

    def __init__(
        self, output_root: Path, *, is_local: bool, setting: str = "auto", partition: str | None = None
    ) -> None:
        """Read the speed of the latest device, if it is of the type that the points will run on.

        setting: the setting `device`; the device itself is not used
        partition: type of the devices of the partition that jobs run on, such as "cuda"; None if unknown
        """
        content = read_record(output_root / FILE, SHAPE, FILE) or {"latest": {}, "devices": {}}
        latest = content["latest"].get(_place(is_local), "CPU" if is_local else UNKNOWN["cuda"])
        is_cpu = latest.startswith(UNKNOWN["cpu"]) and not (is_local and GPU_DRIVER.exists())
        guess = partition or ("cpu" if is_cpu else "cuda")
        self.type = guess if setting == "auto" else setting.partition(":")[0]
        is_latest = latest.startswith(UNKNOWN["cpu"]) == (self.type == "cpu")
        self.device = latest if is_latest else UNKNOWN[self.type]
        self._sums = content["devices"].get(self.device, {})

    @property
    def guessed_rate(self) -> dict[str, float]:
        """Return the multiply-adds per second assumed for "steps" and "model" if this device has not run the model."""
        return GUESSED_RATE[self.type]

    def has_measured(self, config: Config) -> bool:
        """Return whether earlier runs measured the speed of the configuration's model and hook on this device."""
        return _key(config) in self._sums

    def estimate_seconds(self, pack: Sequence[Point], facts: ModelInfo) -> float:
        """Estimate the seconds to train and evaluate a pack, from earlier runs or, without any, from guessed speeds."""
        config, work = _find_deepest(pack), measure_work(pack, facts)
        if self.has_measured(config):
            sums = self._sums[_key(config)]
            return sum(work[part] * sums[part]["seconds"] / sums[part]["work"] for part in PARTS)
        per_unit = {part: 1 / rate for part, rate in self.guessed_rate.items()} | GUESSED_SECONDS
        return sum(work[part] * per_unit[part] for part in PARTS)


def measure_work(pack: Sequence[Point], facts: ModelInfo) -> dict[str, float]:
    """Return the work of a pack by part (model, steps, pack, point), in the units that class Calibration explains."""
    below = facts.weights(_count_blocks(_find_deepest(pack)))
    tokens = [point.config.training.tokens for point in pack]
    products = (point.config.dict_size * facts.d_model * point.config.training.tokens for point in pack)
    return {"model": max(tokens) * below, "steps": float(sum(products)), "pack": 1.0, "point": float(len(pack))}


def _find_deepest(pack: Sequence[Point]) -> Config:
    """Return the configuration of the first point at the deepest hook, to which the language model runs."""
    return max((point.config for point in pack), key=_count_blocks)


def _count_blocks(config: Config) -> int:
    """Return the number of transformer blocks that the language model runs for a hook; 0 without a model."""
    parts = split_hook(as_block_output(config.model.hook))
    return 0 if parts is None else parts[0] + 1


def _place(is_local: bool) -> str:
    """Return the key under which calibration.json keeps the latest device of this machine or of Slurm jobs."""
    return "here" if is_local else "jobs"


def _key(config: Config) -> str:
    return f"{config.model.name} {config.model.hook}"


def record_run(
    pack: Sequence[Point], facts: ModelInfo, device: str, seconds: Mapping[str, float], *, is_local: bool
) -> None:
    """Add the work and the measured seconds of a finished pack to the device's sums in calibration.json.

    seconds: measured seconds by part (model, steps, pack, point)
    is_local: True for a run on this machine, False for a Slurm job

    If the file cannot be written, a warning is logged and nothing is raised.
    """
    config, work = _find_deepest(pack), measure_work(pack, facts)
    output_root = Path(config.output_root)
    file = output_root / FILE
    try:
        with FileLock(output_root / f".{FILE}.lock"):
            content: dict[str, Any] = read_record(file, SHAPE, FILE) or {"latest": {}, "devices": {}}
            sums = content["devices"].setdefault(device, {}).setdefault(_key(config), {})
            for part in PARTS:
                earlier = sums.get(part, {"work": 0.0, "seconds": 0.0})
                sums[part] = {"work": earlier["work"] + work[part], "seconds": earlier["seconds"] + seconds[part]}
            content["latest"][_place(is_local)] = device
            write_record(file, content, FILE)
    except OSError as error:
        log.warning(
            "could not add the speed of this run to %s (%s). Later plans estimate hours without this run",
            file,
            describe_error(error),
        )
