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
LARGEST_BLOCK = 2**27  # entries of the encoder's product that are held at a time, on a GPU


@dataclass(frozen=True)
class Limits:
    """What bounds a pack: its points (None: any number), the bytes of memory they take (None: what is free), and the
    seconds that it waits for a point which another process has."""

    points: int | None = None
    memory: float | None = None
    patience: float = 5.0

    @classmethod
    def from_launcher(cls, max_points: int | None, max_memory: float | None, patience: float = 5.0) -> "Limits":
        """As hydra.launcher has them, memory in GiB."""
        return cls(max_points, None if max_memory is None else max_memory * 2**30, patience)


def bad_limits(max_points: Any, max_memory: Any) -> list[ConfigError]:
    """What is wrong with the limits as hydra.launcher has them."""
    bad, fix = [], "leave it out"
    if max_points is not None and not (isinstance(max_points, int) and max_points >= 1):
        bad.append(ConfigError("hydra.launcher.max_points", max_points, "must be a whole number from 1 on", fix))
    if max_memory is not None and not (isinstance(max_memory, (int, float)) and max_memory > 0):
        bad.append(ConfigError("hydra.launcher.max_memory", max_memory, "must be a number of GiB above 0", fix))
    return bad


def split_into_packs(points: Sequence[Point], most: int | None = None) -> list[list[Point]]:
    """The points in packs of at most `most`, in their order.

    Points share a stream if nothing that determines it differs: model, hook, text, the seed of its order, and how many
    activations are shuffled together. How much of it a point takes, and in batches of what size, is its own affair.
    """
    by_stream: dict[str, list[Point]] = {}
    for point in points:
        by_stream.setdefault(_stream(point.config), []).append(point)
    packs = []
    for sharing in by_stream.values():
        size = most or len(sharing)
        packs += [sharing[at : at + size] for at in range(0, len(sharing), size)]
    return packs


def _stream(config: Config) -> str:
    determining = {
        **select_stream_settings(config),
        "task": config.task.name,
        "device": config.device,
        "activations": asdict(config.activations),
        "chunk": config.training.batch_size * config.training.chunk_batches,
    }
    return json.dumps(determining, sort_keys=True)


def split_to_fit(points: Sequence[Point], d_in: int, available: float, said: str = "are free") -> list[list[Point]]:
    """The points of a pack in packs that fit into `available` bytes, which `said` says of them.

    One point alone is always tried.
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
            "a pack of %d points needs %.2f GiB and %.2f GiB %s: split into %s, the language model runs %d times",
            *(len(points), total / 2**30, available / 2**30, said, sizes, len(packs)),
        )
    return packs


def pack_bytes(points: Sequence[Point], d_in: int) -> float:
    """About what the points of a pack hold together while they are trained."""
    shared = max(chunk_bytes(point.config, d_in) for point in points)
    return shared + sum(point_bytes(point.config, d_in) for point in points)


def point_bytes(config: Config, d_in: int) -> float:
    """About what a point holds while it is trained: two weight matrices, their gradients and Adam's two moments."""
    return 4 * 2 * config.dict_size * d_in * FLOAT


def chunk_bytes(config: Config, d_in: int) -> float:
    """About what is held once: a chunk before and after shuffling, held-out activations and their reconstructions, and
    what one step works with: rows of the batch's size, a block of the product, rows of dead latents."""
    training, batch, dict_size = config.training, config.training.batch_size, config.dict_size
    activations = 2 * batch * training.chunk_batches + 2 * config.evaluation.tokens
    rows = 8 * batch + 2 * dict_size
    if isinstance(config.sae, MatryoshkaConfig):
        rows += 3 * batch * len(config.sae.prefixes)
    step = rows * d_in + min(batch * dict_size, LARGEST_BLOCK) + 8 * batch * config.k
    return (activations * d_in + step) * FLOAT
