"""Files that are written whole or not at all."""

import csv
import hashlib

import pytest

from sae_sweeps.runtime.files import sha256, write_atomically, write_csv, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with write_atomically(path) as partial:
        partial.write_text("some")
        assert partial.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "some"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [True, False])
def test_an_error_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, error, written):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def write():
        with write_atomically(path) as partial:
            if written:
                partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "file.txt"):
        pass
    assert names(tmp_path) == []


def test_a_csv_file_has_the_columns_of_all_rows(tmp_path):
    path = tmp_path / "rows.csv"
    write_csv(path, [{"a": 1, "b": None}, {"a": 0.1, "c": 'x, "y"\nz'}])
    assert path.read_bytes() == b'a,b,c\n1,,\n0.1,,"x, ""y""\nz"\n'
    with open(path, newline="") as stream:
        assert list(csv.DictReader(stream))[1] == {"a": "0.1", "b": "", "c": 'x, "y"\nz'}


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_sha256_covers_the_whole_file(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(number % 251 for number in range(size)))
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
