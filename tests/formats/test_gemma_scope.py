"""Gemma Scope's files, compared with its formula written out; the path names the model and the hook."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from sae_sweeps.formats.reading import load_sae, locate
from tests.formats.published import D, F, above, activations, assert_computes, weights

PUBLISHED = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"


def params():
    return {**weights(), "threshold": torch.rand(F, generator=torch.Generator().manual_seed(1))}


def write(folder, tensors, save=np.savez):
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "params.npz", **{name: np.asarray(tensor) for name, tensor in tensors.items()})
    return folder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("small", [False, True])
def test_jumprelu(tmp_path, save, small):
    w, x_BD = params(), activations()
    acts_BF = above(x_BD @ w["W_enc"] + w["b_enc"], w["threshold"])  # b_dec is not subtracted
    given = {name.lower() if small else name: tensor for name, tensor in w.items()}
    folder = write(tmp_path / "google" / PUBLISHED, given, save)
    assert_computes(folder, acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])
    assert_computes(f"gemma_scope:{folder}", acts_BF, acts_BF @ w["W_dec"] + w["b_dec"])
    assert locate(str(folder / "params.npz")).folder == folder, "the file may be named as well"
    found = locate(str(folder)).describe()
    assert (found.architecture, found.d_in, found.dict_size, found.k) == ("jumprelu", D, F, None)


@pytest.mark.parametrize(
    ("path", "model", "hook"),
    [
        (f"google/{PUBLISHED}", "gemma-2-2b", "blocks.12.hook_resid_post"),
        (
            "models--google--gemma-scope-2b-pt-res/snapshots/0f1e/layer_3/width_65k/average_l0_70",
            "gemma-2-2b",
            "blocks.3.hook_resid_post",
        ),
        ("google/gemma-scope-9b-it-res/layer_20/width_16k/average_l0_91", "gemma-2-9b-it", "blocks.20.hook_resid_post"),
        ("gemma-scope-2b-pt-mlp/layer_0/width_16k/average_l0_8", "gemma-2-2b", "blocks.0.hook_mlp_out"),
        ("gemma-scope-2b-pt-att/layer_5/width_16k/average_l0_8", "gemma-2-2b", "blocks.5.attn.hook_z"),
        ("elsewhere", None, None),
    ],
)
def test_model_and_hook_are_read_from_the_path(tmp_path, path, model, hook):
    found = locate(str(write(tmp_path / path, params()))).describe()
    assert (found.model, found.hook) == (model, hook)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "token embeddings"),
        ("gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_8", "transcoder"),
    ],
)
def test_transcoders_and_saes_of_embeddings_are_refused(tmp_path, path, problem):
    folder = write(tmp_path / path, params())
    with pytest.raises(ValueError, match=problem):
        locate(str(folder)).describe()


@pytest.mark.parametrize("name", params())
def test_weights_that_are_missing_misshapen_or_not_finite_are_refused(tmp_path, name):
    w = params()
    write(tmp_path, {key: value for key, value in w.items() if key != name})
    with pytest.raises(ValueError, match=f"params.npz has no {name}, which an SAE of this architecture needs"):
        load_sae(tmp_path)
    write(tmp_path, {**w, name: torch.cat([w[name], w[name]])})
    with pytest.raises(ValueError, match=r"has the shape \("):
        load_sae(tmp_path)
    w[name].view(-1)[0] = float("nan")
    write(tmp_path, w)
    with pytest.raises(ValueError, match=rf"{name} must hold only finite numbers, but 1 of \d+ are not"):
        load_sae(tmp_path)


def test_a_decoder_that_is_not_a_matrix_is_refused(tmp_path):
    write(tmp_path, {**params(), "W_dec": torch.zeros(F)})
    with pytest.raises(ValueError, match=r"W_dec must be a matrix of latents by width, but it has the shape \(24,\)"):
        locate(str(tmp_path)).describe()


class Evil:
    """An object that makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    made = tmp_path / "made"
    trap = np.array([Evil(made)], dtype=object)
    for name in ("threshold", "W_dec"):
        write(tmp_path, {**params(), name: trap})
        with pytest.raises(ValueError, match="cannot be read as gemma_scope"):
            load_sae(tmp_path)
    (tmp_path / "params.npz").write_bytes(pickle.dumps(Evil(made)))
    with pytest.raises(ValueError, match="cannot be read as gemma_scope"):
        load_sae(tmp_path)
    assert not made.exists()
    with open(tmp_path / "params.npz", "rb") as file:
        pickle.load(file).close()
    assert made.exists(), "unpickling it does make the file"


def npy() -> bytes:
    """Return a file of one array, where an archive is expected."""
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 nearly one", npy()])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path, content):
    (tmp_path / "params.npz").write_bytes(content)
    for look in (lambda: locate(str(tmp_path)).describe(), lambda: load_sae(tmp_path)):
        with pytest.raises(ValueError, match=r"cannot be read as gemma_scope \(.+\)") as raised:
            look()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_or_damaged_file_is_refused(tmp_path, save):
    file = write(tmp_path, params(), save) / "params.npz"
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        middle = archive.getinfo("W_enc.npy").header_offset + 300
    changed = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :]
    for content in (whole[:-1], whole[: len(whole) // 2], changed):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read as gemma_scope \(.+\)"):
            load_sae(tmp_path)
