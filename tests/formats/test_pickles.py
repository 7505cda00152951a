"""dictionary_learning's ae.pt is a pickle: no code in it is run, and a damaged one is refused."""

import os
import pickle

import pytest
import torch
from torch import nn

from sae_sweeps.formats.reading import load_sae
from tests.formats.published import D, F, activations, weights
from tests.formats.test_dictionary_learning import auto_encoder, write


@pytest.mark.parametrize("state", [[1, 2], {"k": 3}, torch.zeros(3), {"encoder.weight": "a"}])
def test_anything_but_named_tensors_is_refused(tmp_path, state):
    write(tmp_path, "AutoEncoder", state)
    with pytest.raises(ValueError, match=r"ae\.pt does not hold a dictionary of named tensors"):
        load_sae(tmp_path)


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


class Dense(nn.Module):
    """A module, saved whole instead of its state."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D, F)


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("among_tensors", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, in_zip, among_tensors):
    state, _ = auto_encoder(weights(), activations())
    trap = Evil(tmp_path / "made")
    content = {**state, "trap": trap} if among_tensors else trap
    folder = write(tmp_path / "sae", "AutoEncoder", state)
    torch.save(content, folder / "ae.pt", _use_new_zipfile_serialization=in_zip)
    with pytest.raises(ValueError, match="holds more than tensors; no code in it was run"):
        load_sae(folder)
    assert not trap.made.exists()
    torch.load(folder / "ae.pt", weights_only=False)
    assert trap.made.exists(), "unpickling it does make the folder"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_plain_pickle_is_never_run(tmp_path, protocol):
    trap = Evil(tmp_path / "made")
    folder = write(tmp_path / "sae", "AutoEncoder", {})
    (folder / "ae.pt").write_bytes(pickle.dumps(trap, protocol=protocol))
    with pytest.raises(ValueError, match="cannot be read as dictionary_learning"):
        load_sae(folder)
    assert not trap.made.exists()


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_module_that_was_saved_whole_is_refused(tmp_path, in_zip):
    folder = write(tmp_path, "AutoEncoder", {})
    torch.save(Dense(), folder / "ae.pt", _use_new_zipfile_serialization=in_zip)
    with pytest.raises(ValueError, match="holds more than tensors; no code in it was run"):
        load_sae(folder)


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, in_zip, share):
    state, _ = auto_encoder(weights(), activations())
    file = write(tmp_path, "AutoEncoder", state) / "ae.pt"
    torch.save(state, file, _use_new_zipfile_serialization=in_zip)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cannot be read as dictionary_learning \(.+\)") as raised:
        load_sae(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_file_of_something_else_is_refused(tmp_path):
    write(tmp_path, "AutoEncoder", {})
    (tmp_path / "ae.pt").write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n")
    with pytest.raises(ValueError, match=r"ae\.pt is a Git LFS pointer, not the content\). Fix: run `git lfs pull`"):
        load_sae(tmp_path)
