"""Synthetic points of sweeps, in memory and on disk, without training."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.runtime.files import write_json
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.comparison import ComparedPoint
from sae_sweeps.sweep.point_state import DONE, State
from tests.conftest import composed

config = lru_cache(composed)

METRICS = ("nmse", "fvu", "l0", "dead_fraction", "ce_degradation", "ce_recovered_zero", "ce_recovered_mean", "ce_model")
TRAINING = {"tokens": 2400, "steps": 40, "seconds": 0.045484743975976016, "tokens_per_second": 52764.94468711584}
PROVENANCE = {"commit": "0123456789abcdef", "python": "3.11.2", "packages": {"torch": "2.9.0", "numpy": "1.26.4"}}


def some_metrics(seed: int, **known: float) -> dict[str, float]:
    """Random metrics with all digits of a double; `known` overrides some."""
    chosen = random.Random(seed)
    return {**{name: chosen.random() for name in METRICS}, **known}


def results(config: Config, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {"point": {}, "metrics": dict(metrics), "training": TRAINING, "config": {}, "provenance": PROVENANCE}


def compared(
    *words: str, sweep: str = "first", name: str = "", state: State | None = None, **metrics: float
) -> ComparedPoint:
    """A point with these command-line settings; done if it has metrics."""
    point = config(*words)
    found = results(point, metrics) if metrics else None
    state = state or State(DONE if metrics else point_state.WAITING)
    title = name or f"{point.sae.architecture}-{point.dict_size}-k{point.k}-seed{point.seed}"
    return ComparedPoint(Sweep(Path("outputs", sweep)), title, state, asdict(point), found)


def put(
    sweep: Sweep,
    name: str,
    *words: str,
    metrics: Mapping[str, float] | None = None,
    state: str | None = None,
    reason: str | None = None,
    curve: Sequence[Mapping[str, float]] = (),
) -> Path:
    """Add a point to a sweep on disk. With metrics it is done; without a state it is waiting."""
    point, folder = config(*words), sweep.folder / name
    folder.mkdir(parents=True)
    if curve:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    if state is not None:
        point_state.write_state(folder, state, reason)
    if metrics is not None:
        write_json(folder / point_state.RESULTS, results(point, metrics))
    sweep.add({name: point})
    return folder
