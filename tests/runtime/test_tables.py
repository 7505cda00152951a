"""Parquet tables that are written part by part and atomically."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae_sweeps.runtime.files import iterate_table, write_table

SCHEMA = pa.schema([("latent", pa.int32()), ("words", pa.list_(pa.struct([("token", pa.string())])))])


def part(first, count):
    latents = range(first, first + count)
    return {"latent": list(latents), "words": [[{"token": f"⏎{n}"}] * (n % 3) for n in latents]}


def test_rows_are_read_in_the_order_of_their_parts(tmp_path):
    path = tmp_path / "folder" / "table.parquet"
    write_table(path, SCHEMA, (part(first, 4) for first in (0, 4, 8)))
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.to_pydict() == part(0, 12)
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 12, 100])
def test_rows_are_read_some_at_a_time(tmp_path, rows):
    path = tmp_path / "table.parquet"
    write_table(path, SCHEMA, (part(first, 4) for first in (0, 4, 8)))
    parts = list(iterate_table(path, rows))
    assert [len(one) for one in parts] == [min(rows, 12 - first) for first in range(0, 12, rows)]
    assert [row for one in parts for row in one] == pq.read_table(path).to_pylist()


def test_damage_is_found_while_rows_are_read(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, SCHEMA, [part(0, 1000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises((OSError, pa.ArrowException)):
        list(iterate_table(path, 100))


def test_a_table_may_have_no_rows(tmp_path):
    write_table(tmp_path / "table.parquet", SCHEMA, [])
    assert pq.read_table(tmp_path / "table.parquet").schema.equals(SCHEMA)


def test_an_error_in_a_part_keeps_the_old_table(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, SCHEMA, [part(0, 3)])

    def parts():
        yield part(5, 4)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_table(path, SCHEMA, parts())
    with pytest.raises(pa.ArrowInvalid):
        write_table(path, SCHEMA, [part(5, 4), {"latent": [0, 1], "words": [[]]}])
    assert pq.read_table(path).to_pydict() == part(0, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]
