"""Tables of a meta-SAE over SAEs of several sizes.

latents.parquet        a row per latent of each SAE: the meta-latents it consists of
meta_latents.parquet   a row per meta-latent: how many latents of each SAE use it, and which use it most
"""

# F latents of all SAEs, M meta-latents

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from sae_sweeps.runtime.files import replace_non_finite, write_table
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies.decomposition_tables import LATENTS_FILE, META_LATENTS_FILE, PART, USERS, list_entries
from sae_sweeps.studies.latent_tables import ROWS
from sae_sweeps.studies.meta_sizes import Stack, count_uses

USED_BY = pa.struct([("point", pa.string()), ("latents", pa.int32())])
USER = pa.struct([("point", pa.string()), ("latent", pa.int32()), ("weight", pa.float32())])
LATENTS = pa.schema(
    [
        ("point", pa.string()),
        ("latent", pa.int32()),
        ("explained", pa.float32()),  # share of the direction; null if it was left out
        ("meta_latents", pa.list_(PART)),  # largest weight first
    ]
)
META_LATENTS = pa.schema(
    [
        ("meta_latent", pa.int32()),
        ("used_by", pa.int32()),  # latents of all SAEs
        ("used_by_sae", pa.list_(USED_BY)),
        ("latents", pa.list_(USER)),  # of each SAE the USERS with the largest weights; largest weight first
    ]
)


def write_latents(folder: Path, stack: Stack, decomposition: RowSparse, explained_F: Tensor) -> None:
    """Write latents.parquet: for each latent of each SAE, meta-latents with weights and the explained share.

    decomposition: weight of each meta-latent in each latent's decoder direction, (F, M)
    explained_F (F,): explained share of each decoder direction, NaN for latents that were left out
    """
    list_parts = list_entries(decomposition, "meta_latent")

    def build_rows() -> Iterator[dict[str, Any]]:
        for name, start, size in zip(stack.names, stack.starts, stack.sizes, strict=True):
            for first in range(0, size, ROWS):
                latents = range(first, min(first + ROWS, size))
                explained = explained_F[start + latents.start : start + latents.stop].tolist()
                yield {
                    "point": [name] * len(latents),
                    "latent": list(latents),
                    "explained": replace_non_finite(explained),
                    "meta_latents": [list_parts(start + latent) for latent in latents],
                }

    write_table(folder / LATENTS_FILE, LATENTS, build_rows())


def write_meta_latents(folder: Path, stack: Stack, decomposition: RowSparse) -> None:
    """Write meta_latents.parquet: for each meta-latent, the latents of each SAE that use it.

    decomposition: weight of each meta-latent in each latent's decoder direction, (F, M)
    """
    everything_F = torch.arange(decomposition.shape[0], device=decomposition.col_N.device)
    sae_F = stack.find_sae(everything_F)
    uses_MS = count_uses(decomposition, sae_F, len(stack.names)).T.tolist()
    list_users, saes = list_entries(decomposition.transpose(), "latent"), sae_F.tolist()

    def list_strongest(meta_latent: int) -> list[dict[str, Any]]:
        found, listed = [], [0] * len(stack.names)
        for user in list_users(meta_latent):
            at = saes[user["latent"]]
            listed[at] += 1
            if listed[at] <= USERS:
                here = user["latent"] - stack.starts[at]
                found.append({"point": stack.names[at], "latent": here, "weight": user["weight"]})
        return found

    def build_rows() -> Iterator[dict[str, Any]]:
        for first in range(0, len(uses_MS), ROWS):
            part = range(first, min(first + ROWS, len(uses_MS)))
            yield {
                "meta_latent": list(part),
                "used_by": [sum(uses_MS[one]) for one in part],
                "used_by_sae": [
                    [{"point": name, "latents": uses} for name, uses in zip(stack.names, uses_MS[one], strict=True)]
                    for one in part
                ],
                "latents": [list_strongest(one) for one in part],
            }

    write_table(folder / META_LATENTS_FILE, META_LATENTS, build_rows())
