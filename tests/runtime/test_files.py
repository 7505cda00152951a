"""Files that are written whole or not at all."""

import csv
import hashlib
import os

import pyarrow as pa
import pytest
import torch

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.formats import saelens, sparsify
from sae_sweeps.formats.description import Description
from sae_sweeps.runtime.files import (
    apply_umask,
    save_tensors,
    sha256,
    write_atomically,
    write_csv,
    write_folder,
    write_json,
    write_table,
    write_text,
)
from sae_sweeps.runtime.logs import log_file
from sae_sweeps.saes import TopKSAE
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import CurveFile


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_only_when_it_is_complete_and_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "new" / "folder"
    for content in ("first", "second"):
        with write_folder(path) as partial:
            (partial / content).touch()
            assert partial.parent == path.parent
            assert not (path / content).exists()
        assert names(path) == [content]
    assert names(path.parent) == ["folder"]


def test_an_error_leaves_the_earlier_folder(tmp_path):
    with write_folder(tmp_path / "folder") as partial:
        (partial / "first").touch()

    def interrupt() -> None:
        with write_folder(tmp_path / "folder") as partial:
            (partial / "second").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert (names(tmp_path), names(tmp_path / "folder")) == (["folder"], ["first"])


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


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    path = tmp_path / "rows.csv"
    texts = ["=1+1", "+1", "-x", "@sum(a)", "a=1", " =1"]
    write_csv(path, [{"=a": text, "number": -1.5, "\udc80": "\udc80"} for text in texts])
    with open(path, newline="", encoding="utf-8") as stream:
        head, *rows = csv.reader(stream)
    assert head == ["'=a", "number", "\\udc80"]
    assert [row[0] for row in rows] == [*(f"'{text}" for text in texts[:4]), *texts[4:]]
    assert all(row[1:] == ["-1.5", "\\udc80"] for row in rows)
    write_csv(path, [{"a": "\t=1"}, {"a": "x\r=1,\n\0"}])
    assert path.read_bytes() == b'a\n\\t=1\n"x\\r=1,\n\\x00"\n'


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_sha256_covers_the_whole_file(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(number % 251 for number in range(size)))
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, write_atomically(tmp_path / "results.json"):
        pass  # nothing is written
    assert caught.value.filename == str(tmp_path / "results.json")


def write_one_of_each(folder):
    """Write a file by each function that writes files of a sweep."""
    tensors = {"a": torch.ones(3, 2)}
    save_tensors(tensors, folder / "tensors.safetensors")
    write_json(folder / "value.json", {})
    write_csv(folder / "rows.csv", [{"a": 1}])
    write_table(folder / "table.parquet", pa.schema([("a", pa.int64())]), [{"a": [1]}])
    checkpoints.save(folder / "checkpoint", 1, tensors, "one")
    CurveFile(folder / "metrics.jsonl", 0).append({"step": 1})
    ActivationCache(folder / "cache", 1e6, {}).get(torch.ones(1, 2), lambda: torch.ones(1, 2, 3))
    saelens.write(folder / "sae", TopKSAE(8, 6, 2).for_inference(), {})
    plain = TopKSAE(8, 6, 2, normalize_input=False).for_inference()
    sparsify.write(folder / "sparsify" / "sae", plain, Description("topk", 8, 6))
    with log_file(folder / "point"):
        pass


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077])
def test_files_and_folders_have_the_mode_that_the_umask_says(tmp_path, umask):
    earlier = os.umask(umask)
    try:
        (tmp_path / "sweep").mkdir()
        write_one_of_each(tmp_path / "sweep")
    finally:
        os.umask(earlier)
    found = list((tmp_path / "sweep").rglob("*"))
    assert len([path for path in found if path.suffix == ".safetensors"]) == 5
    for path in found:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_file_keeps_no_mode_of_a_library(tmp_path):
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "plain").touch()
    apply_umask(tmp_path / "secret")
    assert (tmp_path / "secret").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert names(tmp_path) == ["plain", "secret"]
