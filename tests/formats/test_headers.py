"""Shapes and types are compared before any number is read: a small file cannot ask for more than it declares."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweeps.formats import saelens
from sae_sweeps.formats.reading import load_sae, locate
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.saes import TopKSAE
from tests.formats.published import D, F
from tests.formats.test_reading import FORMATS, write

WEIGHTS = {
    "sae_lens": "sae_weights.safetensors",
    "gemma_scope": "params.npz",
    "gemma_scope_2": "params.safetensors",
    "dictionary_learning": "ae.pt",
    "sparsify": "sae.safetensors",
}
BIASES = {"dictionary_learning": "encoder.bias", "sparsify": "encoder.bias"}  # in the other formats: b_enc
MANY = 2**23  # numbers of a tensor that only a hostile file has: 32 MiB


def change(format: str, folder: Path, in_zip: bool = True, **tensors: torch.Tensor) -> Path:
    """Replace tensors in the weights of an SAE. `bias` stands for the name of the encoder's bias."""
    file, bias = folder / WEIGHTS[format], BIASES.get(format, "b_enc")
    named = {bias if name == "bias" else name: tensor for name, tensor in tensors.items()}
    if format == "gemma_scope":
        content = dict(np.load(file)) | {name: tensor.numpy() for name, tensor in named.items()}
        np.savez_compressed(file, **content)
    elif format == "dictionary_learning":
        state = torch.load(file, weights_only=True) | named
        torch.save(state, file, _use_new_zipfile_serialization=in_zip)
    else:
        save_file(load_file(file) | named, file)
    return folder


def describe(folder: Path) -> None:
    locate(str(folder)).describe()


@pytest.mark.parametrize("look", [describe, load_sae])
@pytest.mark.parametrize("format", FORMATS)
def test_a_tensor_of_another_shape_is_refused_without_being_read(tmp_path, format, look):
    folder = change(format, write(format, tmp_path / "layers.2"), bias=torch.full((F + 1,), float("nan")))
    with pytest.raises(ValueError, match=rf"has the shape \({F + 1},\), but the shape must be \({F},\) for {F} l"):
        look(folder)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.complex64])
@pytest.mark.parametrize("format", FORMATS)
def test_numbers_of_another_kind_are_refused(tmp_path, format, dtype):
    folder = change(format, write(format, tmp_path / "layers.2"), bias=torch.ones(F, dtype=dtype))
    for look in (describe, load_sae):
        with pytest.raises(ValueError, match=r"has the type .+, but the type must be one of float16, bf"):
            look(folder)


def repack(file: Path, name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> None:
    """Replace an entry of a zip archive by its name without folders."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    (full,) = (entry for entry in entries if entry.endswith(name))
    with zipfile.ZipFile(file, "w", method) as archive:
        for entry, old in entries.items():
            archive.writestr(entry, content if entry == full else old)


def deflated_zeros(folder: Path) -> None:
    change("gemma_scope", folder, bias=torch.zeros(MANY))


def long_header(folder: Path) -> None:
    start = b"\x93NUMPY\x02\x00" + (4 * MANY).to_bytes(4, "little")
    repack(folder / "params.npz", "b_enc.npy", start + b" " * 4 * MANY, zipfile.ZIP_DEFLATED)


def repeated_number(folder: Path, in_zip: bool = True) -> None:
    change("dictionary_learning", folder, in_zip, bias=torch.zeros(1).expand(F))
    change("dictionary_learning", folder, in_zip, **{"encoder.weight": torch.zeros(1).expand(F, D)})


def growing_storage(folder: Path) -> None:
    """Say that a storage has one number, and a tensor in it many."""
    file = change("dictionary_learning", folder, bias=torch.zeros(70_001)) / "ae.pt"
    many = b"J" + (70_001).to_bytes(4, "little")
    with zipfile.ZipFile(file) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        pickled = archive.read(name)
        large = next(entry for entry in archive.infolist() if entry.file_size == 4 * 70_001).filename
    assert pickled.count(many) == 2, "the size of the storage, and the shape"
    pickled = pickled.replace(many, b"J" + (1).to_bytes(4, "little"), 1)
    repack(file, "data.pkl", pickled.replace(many, b"J" + MANY.to_bytes(4, "little")))
    repack(file, large, bytes(4))


def deflated_pickle(folder: Path) -> None:
    file = change("dictionary_learning", folder, bias=torch.zeros(MANY)) / "ae.pt"
    with zipfile.ZipFile(file) as archive:
        name = archive.namelist()[0]
        content = archive.read(name)
    repack(file, name, content, zipfile.ZIP_DEFLATED)


def large_tensor(format: str) -> Callable[[Path], None]:
    return lambda folder: change(format, folder, bias=torch.zeros(MANY)) and None


HOSTILE = {
    "deflated zeros": ("gemma_scope", deflated_zeros),
    "long header": ("gemma_scope", long_header),
    "repeated number": ("dictionary_learning", repeated_number),
    "growing storage": ("dictionary_learning", growing_storage),
    "deflated pickle": ("dictionary_learning", deflated_pickle),
    **{f"large tensor of {format}": (format, large_tensor(format)) for format in FORMATS if format != "gemma_scope"},
}
# reads each folder, and prints how much more memory (bytes) the process had at most, and the error
MEASURE = """
import json, sys
from pathlib import Path
from sae_sweeps.formats.reading import load_sae
load_sae(sys.argv[1])  # loads libraries

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

for folder in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before, error = memory("VmRSS"), None
    try:
        load_sae(folder)
    except ValueError as refused:
        error = str(refused)
    print(json.dumps([memory("VmHWM") - before, error]))
"""


def measure(*folders: Path) -> list[tuple[int, str | None]]:
    command = [sys.executable, "-c", MEASURE, *map(str, folders)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_memory_is_bounded_by_the_size_that_is_declared(tmp_path):
    folders = {name: write(format, tmp_path / name / "layers.2") for name, (format, _) in HOSTILE.items()}
    for name, (_, damage) in HOSTILE.items():
        damage(folders[name])
    right = tmp_path / "right"
    saelens.write(right, TopKSAE(1024, 4096, 3, normalize_input=False).for_inference(), {})
    *refused, read = measure(write("sae_lens", tmp_path / "first"), *folders.values(), right)
    for name, (peak, error) in zip(HOSTILE, refused, strict=True):
        assert error is not None, name
        assert len(error.splitlines()) == 1, name
        assert peak < 2**24, name
    assert read[1] is None
    assert read[0] < 3 * 4 * 2 * 1024 * 4096  # the SAE, a transposed copy, and what the check for NaN takes


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_tensor_that_repeats_numbers_is_refused_with_a_fix(tmp_path, in_zip):
    folder = write("dictionary_learning", tmp_path)
    repeated_number(folder, in_zip)
    with pytest.raises(ValueError, match=r"ae\.pt describes tensors that are larger than what it holds.+clone\(\)"):
        load_sae(folder)


def test_tensors_that_share_their_numbers_are_read(tmp_path):
    folder = write("dictionary_learning", tmp_path)
    weight = torch.randn(F, D)
    change("dictionary_learning", folder, **{"encoder.weight": weight, "decoder.weight": weight.T})
    sae = load_sae(folder)
    assert torch.equal(sae.W_enc, sae.W_dec)
