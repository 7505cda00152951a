"""Files that a library could not read: what is wrong with them is found in their first bytes."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sae_sweeps.runtime.file_faults import find_file_fault, list_tensors

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{7:064d}\nsize 14028008\n"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3, 4), "b": torch.ones(5)}, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model", "a.parquet", "words.txt"])
def test_a_git_lfs_pointer_is_found_in_a_file_of_any_kind(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    assert find_file_fault(tmp_path / name) == ("is a Git LFS pointer, not the file itself", "git lfs pull")


def test_a_whole_file_has_no_fault(tmp_path, weights):
    assert find_file_fault(weights) is None
    assert sorted(list_tensors(weights)) == ["a", "b"]
    for content in ({"a": [1, 2]}, ["x" * 2**21]):
        (tmp_path / "one.json").write_text(json.dumps(content) + "\n")
        assert find_file_fault(tmp_path / "one.json") is None


@given(share=st.floats(0, 1, exclude_max=True))
def test_weights_cut_anywhere_are_found(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    save_file({"a": torch.zeros(3, 4)}, folder / "model.safetensors")
    os.truncate(folder / "model.safetensors", int(share * os.path.getsize(folder / "model.safetensors")))
    assert find_file_fault(folder / "model.safetensors") is not None


@given(content=st.binary(max_size=64))
def test_any_bytes_are_a_fault_and_never_an_exception(tmp_path_factory, content):
    for name in ("a.safetensors", "a.json", "a.bin"):
        path = tmp_path_factory.mktemp("any") / name
        path.write_bytes(content)
        find_file_fault(path)


@pytest.mark.parametrize("size", [100, 2**21])
def test_cut_json_is_found_whether_it_is_small_or_large(tmp_path, size):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"vocab": "x" * size}))
    os.truncate(path, os.path.getsize(path) // 2)
    assert find_file_fault(path)[1] == "fetch the file again"


def test_longer_weights_than_the_header_has_are_damaged(weights):
    with open(weights, "ab") as file:
        file.write(b"more")
    assert "is cut or damaged: it has" in find_file_fault(weights)[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_access_is_named(weights):
    weights.chmod(0)
    assert find_file_fault(weights)[0] == "cannot be read (Permission denied)"


def test_a_folder_or_nothing_in_place_of_a_file_cannot_be_read(tmp_path):
    assert find_file_fault(tmp_path)[0] == "cannot be read (Is a directory)"
    assert find_file_fault(tmp_path / "none")[0] == "cannot be read (No such file or directory)"
