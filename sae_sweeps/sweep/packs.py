"""Packs: points that share one activation stream, so that the language model runs once for all of them."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.config.saes import MatryoshkaConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.point import Point

log = logging.getLogger(__name__)

FLOAT = 4  # bytes
LARGEST_BLOCK = 2**27  # the most pre-activations in memory at a time on a GPU (encoder.py)


@dataclass(frozen=True)
class Limits:
    """Limits of a pack.

    points: the most points (None: no limit)
    memory: the most bytes of device memory (None: what is free)
    patience: seconds to wait for a point that another process is training
    """

    points: int | None = None
    memory: float | None = None
    patience: float = 5.0

    @classmethod
    def from_launcher(cls, max_points: int | None, max_memory: float | None, patience: float = 5.0) -> "Limits":
        """Return the limits from the settings of hydra.launcher. `max_memory`: in GiB."""
        return cls(max_points, None if max_memory is None else max_memory * 2**30, patience)


def check_limits(max_points: Any, max_memory: Any) -> list[ConfigError]:
    """Return the problems of hydra.launcher's settings of these names; empty if both are valid or None."""
    problems, fix = [], "leave it out"
    if max_points is not None and not (isinstance(max_points, int) and max_points >= 1):
        problems.append(ConfigError("hydra.launcher.max_points", max_points, "must be a whole number from 1 on", fix))
    if max_memory is not None and not (isinstance(max_memory, (int, float)) and max_memory > 0):
        problems.append(ConfigError("hydra.launcher.max_memory", max_memory, "must be a number of GiB above 0", fix))
    return problems


def split_into_packs(points: Sequence[Point], max_points: int | None = None) -> list[list[Point]]:
    """Split points into packs of at most `max_points`, in their order.

    Points share a stream if they agree in all that determines it: model, hook, text, the seed of its order, and the
    number of activations shuffled together. They may differ in batch size and in the number of tokens.
    """
    by_stream: dict[str, list[Point]] = {}
    for point in points:
        by_stream.setdefault(_stream(point.config), []).append(point)
    packs = []
    for sharing in by_stream.values():
        size = max_points or len(sharing)
        packs += [sharing[start : start + size] for start in range(0, len(sharing), size)]
    return packs


def _stream(config: Config) -> str:
    """Return a key that is equal for points that share an activation stream."""
    determining = {
        **select_stream_settings(config),
        "task": config.task.name,
        "device": config.device,
        "activations": asdict(config.activations),
        "chunk": config.training.batch_size * config.training.chunk_batches,
    }
    return json.dumps(determining, sort_keys=True)


def split_to_fit(
    points: Sequence[Point], d_in: int, available: float, limited_by: str = "free memory"
) -> list[list[Point]]:
    """Split a pack so that each part fits in `available` bytes. A single point is always tried, whatever its size.

    d_in: width of the activations; limited_by: what sets `available`, for the log line about a split
    """
    shared = max(chunk_bytes(point.config, d_in) for point in points)
    packs: list[list[Point]] = [[]]
    left = available - shared
    for point in points:
        needed = point_bytes(point.config, d_in)
        if packs[-1] and needed > left:
            packs.append([])
            left = available - shared
        packs[-1].append(point)
        left -= needed
    if len(packs) > 1:
        total = pack_bytes(points, d_in)
        sizes = " + ".join(str(len(pack)) for pack in packs)
        log.info(
            "a pack of %d points needs %.2f GiB, more than the %.2f GiB of %s: "
            "split into %s, the language model runs %d times",
            *(len(points), total / 2**30, available / 2**30, limited_by, sizes, len(packs)),
        )
    return packs


def pack_bytes(points: Sequence[Point], d_in: int) -> float:
    """Estimate the bytes of device memory that a pack takes in training, without the language model."""
    shared = max(chunk_bytes(point.config, d_in) for point in points)
    return shared + sum(point_bytes(point.config, d_in) for point in points)


def point_bytes(config: Config, d_in: int) -> float:
    """Estimate the bytes of one point in training: two weight matrices, their gradients and Adam's two moments."""
    return 4 * 2 * config.dict_size * d_in * FLOAT


def chunk_bytes(config: Config, d_in: int) -> float:
    """Estimate the bytes that the points of a pack share.

    These are a chunk before and after shuffling, the held-out activations and their reconstructions, and the work space
    of one step: rows of the batch, a block of pre-activations, and rows of dead latents.
    """
    training, batch, dict_size = config.training, config.training.batch_size, config.dict_size
    activations = 2 * batch * training.chunk_batches + 2 * config.evaluation.tokens
    rows = 8 * batch + 2 * dict_size
    if isinstance(config.sae, MatryoshkaConfig):
        rows += 3 * batch * len(config.sae.prefixes)
    step = rows * d_in + min(batch * dict_size, LARGEST_BLOCK) + 8 * batch * config.k
    return (activations * d_in + step) * FLOAT
