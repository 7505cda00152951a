"""Data of the graph around a meta-latent: the latents that use it, and their other meta-latents.

The page has some meta-latents of a study only: those that most latents use, and as many spread over the others.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sae_sweeps.report.blocks import round_digits

META_LATENTS = 32  # meta-latents of a study that the page can show
LATENTS = 24  # latents around a meta-latent, of all SAEs together
PARTS = 6  # meta-latents of a latent
WEIGHT_DIGITS = 3


def collect_neighbourhoods(meta_latents: pa.Table, latents: pa.Table, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return for some meta-latents, most used first, the latents with the largest weights and their meta-latents.

    meta_latents: columns `used_by` and `latents` of the study's table, a row per meta-latent; users without a `point`
        are latents of the only SAE
    latents: column `meta_latents` of the study's table, a row per latent of all SAEs
    sizes: number of latents of each SAE by its name, in the order of the rows of `latents`

    An entry: `meta_latent` and `used_by`; `latents`, a list of [place of the SAE in `sizes`, latent, weight, parts].
    Parts are a list of [meta-latent, weight]. Both lists have the largest weights first.
    """
    places = {name: place for place, name in enumerate(sizes)}
    starts = np.cumsum([0, *sizes.values()])
    most = max(3, LATENTS // len(sizes))
    entries = []
    for number in _choose(meta_latents["used_by"].to_numpy()):
        found, listed = [], [0] * len(sizes)
        for user in meta_latents["latents"][number].as_py():
            place = places[user["point"]] if "point" in user else 0
            listed[place] += 1
            if listed[place] <= most:
                parts = latents["meta_latents"][int(starts[place]) + user["latent"]].as_py()
                found.append([place, user["latent"], _round(user["weight"]), _list_parts(parts)])
        entries.append({"meta_latent": number, "used_by": meta_latents["used_by"][number].as_py(), "latents": found})
    return entries


def _choose(used_by_M: np.ndarray) -> list[int]:
    """Return the numbers of META_LATENTS meta-latents at most, most used first: half of them those with the most users,
    half spread evenly over the other ones that have any."""
    ranked = [int(number) for number in np.argsort(-used_by_M, kind="stable") if used_by_M[number] > 0]
    first, others = ranked[: META_LATENTS // 2], ranked[META_LATENTS // 2 :]
    at = np.unique(np.linspace(0, len(others) - 1, min(len(others), META_LATENTS - len(first))).astype(int))
    return first + [others[one] for one in at]


def _list_parts(parts: list[dict[str, Any]]) -> list[list[Any]]:
    return [[part["meta_latent"], _round(part["weight"])] for part in parts[:PARTS]]


def _round(weight: float) -> float | None:
    return round_digits(weight, WEIGHT_DIGITS)
