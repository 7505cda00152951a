"""Tables of many rows, as Parquet files that are written whole or not at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sae_sweeps.files import written_whole


def write_table(path: Path, schema: pa.Schema, parts: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows that come in parts, each a mapping from column to values, a part in memory at a time."""
    with written_whole(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pa.table(dict(part), schema=schema))
