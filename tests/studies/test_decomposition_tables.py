"""Rows of the tables of a meta-SAE study, read in batches."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae_sweeps.studies.decomposition_tables import _read_rows

ROWS = 70_000  # more than a batch


@pytest.mark.parametrize("latents", [set(), {1, 2}, {0, ROWS - 1}])
def test_the_rows_of_any_latents_are_read(tmp_path, latents):
    pq.write_table(pa.table({"latent": pa.array(range(ROWS), pa.int32())}), tmp_path / "latents.parquet")
    assert {row["latent"] for row in _read_rows(tmp_path / "latents.parquet", latents)} == latents
