"""The dictionary size and tokens with the lowest predicted NMSE among those that can be trained in some hours."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sae_sweeps.activations.facts import read_facts
from sae_sweeps.config import Config
from sae_sweeps.studies.scaling import Fit, Predicted
from sae_sweeps.sweep.calibration import Calibration
from sae_sweeps.sweep.point import Point

BEYOND = 4  # times the largest size of a law up to which it is trusted
STEP = 2**0.125  # ratio of neighbouring sizes that are tried
ROUND = 64  # of which sizes are a multiple


@dataclass(frozen=True)
class Budget:
    """Hours for training one SAE alone, at the speed that calibration.json has of this machine."""

    hours: float
    calibration: Calibration

    def describe_speed(self, config: Config) -> str:
        """Return a phrase that says what the hours of the SAEs are estimated from."""
        kind = "measured" if self.calibration.has_measured(config) else "assumed"
        return f"at the {kind} speed of a {self.calibration.device}"

    def choose(self, fit: Fit, point: Point) -> list[Predicted]:
        """Return the prediction with the lowest NMSE that the hours suffice for, at each k; none if they do not.

        Sizes reach from the smallest to BEYOND times the largest of the law; so do tokens, if the law has them.
        point: one of the law, whose other settings the SAE would have
        Raises: ConfigError if the sizes of the language model cannot be read.
        """
        facts = read_facts(point.config, to_plan=True)
        sizes = {ROUND * round(size / ROUND) or ROUND for size in _list_values([one.dict_size for one in fit.points])}
        tokens = {round(number) for number in _list_values([one.tokens for one in fit.points])}
        if "epsilon" not in fit.names:
            tokens = {max(one.tokens for one in fit.points)}
        fitting = [
            (size, number)
            for size in sorted(sizes)
            for number in sorted(tokens)
            if self.calibration.estimate_seconds([_resize(point, size, number)], facts) <= 3600 * self.hours
        ]
        best = []
        for k in sorted({one.k for one in fit.points}):
            found = [at for at in fitting if at[0] >= k]
            if found:
                size, number = min(found, key=lambda at: fit.evaluate(at[0], k, at[1]).value)
                best.append(Predicted(size, k, number, fit.predict(size, k, number), None))
        return best


def _list_values(known: list[int]) -> Iterator[float]:
    """Yield values from the smallest to BEYOND times the largest, each STEP times the one before; the last is exact."""
    low, high = min(known), BEYOND * max(known)
    count = math.ceil(math.log(high / low, STEP))
    yield from (high / STEP**number for number in range(count + 1))


def _resize(point: Point, dict_size: int, tokens: int) -> Point:
    training = replace(point.config.training, tokens=tokens)
    return Point(replace(point.config, dict_size=dict_size, training=training), point.folder)
