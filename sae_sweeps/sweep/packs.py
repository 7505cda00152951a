"""Packs: points that share one activation stream, so that the language model runs once for all of them."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.memory import hook_bytes, pack_bytes, point_bytes, shared_bytes
from sae_sweeps.sweep.point import Point

log = logging.getLogger(__name__)

LOCKS, TRACKED = 1, 4  # files that a point keeps open without tracking; in W&B's service, which has the same limit


@dataclass(frozen=True)
class Limits:
    """Limits of a pack: points that are trained together on one activation stream.

    points: largest number of points; None for no limit
    memory: largest number of bytes of device memory; None for all free memory
    patience: seconds to wait for a point that another process is training
    """

    points: int | None = None
    memory: float | None = None
    patience: float = 5.0

    @classmethod
    def from_launcher(cls, max_points: int | None, max_memory: float | None, patience: float = 5.0) -> "Limits":
        """Return the limits of a pack from the settings max_points and max_memory (GiB) of hydra.launcher."""
        return cls(max_points, None if max_memory is None else max_memory * 2**30, patience)


def check_limits(max_points: Any, max_memory: Any) -> list[ConfigError]:
    """Return an error for each invalid setting: hydra.launcher.max_points and hydra.launcher.max_memory (GiB).

    None is valid for both and means no limit.
    """
    problems, fix = [], "correct the setting or leave it out"
    if max_points is not None and not (isinstance(max_points, int) and max_points >= 1):
        problems.append(ConfigError("hydra.launcher.max_points", max_points, "must be a whole number from 1 on", fix))
    if max_memory is not None and not (isinstance(max_memory, (int, float)) and max_memory > 0):
        problems.append(ConfigError("hydra.launcher.max_memory", max_memory, "must be a number of GiB above 0", fix))
    return problems


def split_into_packs(points: Sequence[Point], max_points: int | None = None) -> list[list[Point]]:
    """Split points into packs (points that share one activation stream), keeping the order of the points.

    All points of a pack have the same model, text, shuffling seed, device, and number of activations shuffled together.
    They may differ in hook, batch size and the number of training tokens. The points of one hook stay together, so that
    a pack that is split has few.

    max_points: largest number of points in a pack; None for no limit
    """
    by_stream: dict[str, list[Point]] = {}
    for point in points:
        by_stream.setdefault(_stream(point.config), []).append(point)
    packs = []
    for alike in by_stream.values():
        hooks = list_hooks(alike)
        sharing = sorted(alike, key=lambda point: hooks.index(point.config.model.hook))
        size = max_points or len(sharing)
        packs += [sharing[start : start + size] for start in range(0, len(sharing), size)]
    return packs


def list_hooks(points: Sequence[Point]) -> list[str]:
    """Return the hooks of points, each once, in the order of the points."""
    return list(dict.fromkeys(point.config.model.hook for point in points))


def _stream(config: Config) -> str:
    """Return a key that is equal for points that share an activation stream."""
    settings = select_stream_settings(config)
    settings["model"].pop("hook")  # one pass of the model gives the activations at all hooks
    determining = {
        **settings,
        "batch_sequences": config.model.batch_sequences,
        "task": config.task.name,
        "device": config.device,
        "activations": asdict(config.activations),
        "chunk": config.training.batch_size * config.training.chunk_batches,
    }
    return json.dumps(determining, sort_keys=True)


def split_to_fit(
    points: Sequence[Point], facts: ModelInfo, device: str, available: float, limited_by: str = "free memory"
) -> list[list[Point]]:
    """Split a pack into packs that each fit in `available` bytes of device memory.

    A point that does not fit even alone gets a pack of its own, because the sizes are estimates.

    facts: sizes of the language model
    device: type of the device, such as "cpu" or "cuda"
    limited_by: source of the limit `available`, named in the log line about a split
    """
    shared = max(shared_bytes(point.config, facts, device) for point in points)
    packs: list[list[Point]] = [[]]
    left = available - shared
    for point in points:
        needed = point_bytes(point.config, facts.d_model)
        if packs[-1] and needed + _more_hook_bytes(packs[-1], point, facts) > left:
            packs.append([])
            left = available - shared
        left -= needed + _more_hook_bytes(packs[-1], point, facts)
        packs[-1].append(point)
    if len(packs) > 1:
        total = pack_bytes(points, facts, device)
        sizes = " + ".join(str(len(pack)) for pack in packs)
        log.info(
            "a pack of %d points needs %.2f GiB, more than the %.2f GiB of %s. "
            "It is split into packs of %s points, so the language model runs %d times",
            *(len(points), total / 2**30, available / 2**30, limited_by, sizes, len(packs)),
        )
    return packs


def _more_hook_bytes(pack: Sequence[Point], point: Point, facts: ModelInfo) -> float:
    """Estimate the bytes that the activations of another hook take, if the point brings one to the pack."""
    hooks = list_hooks(pack)
    return hook_bytes(point.config, facts.d_model) if hooks and point.config.model.hook not in hooks else 0.0


def split_by_files(points: Sequence[Point], available: int) -> list[list[Point]]:
    """Split a pack into packs whose points together keep at most `available` files open, and at least one point each.

    A point keeps its lock open. With tracking, W&B's service and this process keep more.
    """
    packs: list[list[Point]] = [[]]
    left = available
    for point in points:
        needed = LOCKS if point.config.tracking.mode == "off" else TRACKED
        if packs[-1] and needed > left:
            packs.append([])
            left = available
        packs[-1].append(point)
        left -= needed
    if len(packs) > 1:
        sizes = " + ".join(str(len(pack)) for pack in packs)
        log.info(
            "a pack of %d points is split into packs of %s points, because only %d more files can be open at a time; "
            "a higher limit (`ulimit -Hn`) saves running the language model again",
            *(len(points), sizes, available),
        )
    return packs
