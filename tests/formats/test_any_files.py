"""Whatever is in the files of an SAE: it is read right, or refused in one line; never another error, never a guess."""

import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_sweeps.formats.reading import load_sae
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.saved_saes import find_saved_sae
from tests.conftest import composed
from tests.formats.published import activations
from tests.formats.test_reading import FORMATS, write

CONFIG_FILES = {
    "sae_lens": "cfg.json",
    "gemma_scope_2": "config.json",
    "dictionary_learning": "config.json",
    "sparsify": "cfg.json",
}
FILES = {
    "sae_lens": ["cfg.json", "sae_weights.safetensors"],
    "gemma_scope": ["params.npz"],
    "gemma_scope_2": ["config.json", "params.safetensors"],
    "dictionary_learning": ["config.json", "ae.pt"],
    "sparsify": ["cfg.json", "sae.safetensors"],
}
# settings that decide something in one of the formats, and values that are right in some place
NAMES = [
    *("architecture", "d_in", "d_sae", "k", "metadata", "apply_b_dec_to_input", "normalize_activations", "hook_name"),
    *("hook_point", "model_name", "hook_head_index", "prepend_bos", "model_from_pretrained_kwargs", "sae_sweeps"),
    *("activation_fn_str", "activation_fn_kwargs", "rescale_acts_by_decoder_norm", "reshape_activations", "dtype"),
    *("trainer", "buffer", "dict_class", "activation_dim", "dict_size", "layer", "lm_name", "submodule_name", "io"),
    *("activation", "num_latents", "expansion_factor", "signed", "hf_hook_point_in", "hf_hook_point_out", "width"),
    *("center_writing_weights", "context_size", "decoder_directions_of", "type", "input_transform"),
]
RIGHT = [
    "topk",
    "standard",
    "jumprelu",
    "gated",
    "AutoEncoder",
    "AutoEncoderTopK",
    "blocks.2.hook_resid_post",
    "sae",
    8,
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([*RIGHT, 24])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=9), values, max_size=8)


@functools.cache
def template(format: str) -> Path:
    """Return the folder of an SAE in a format, written once."""
    torch.manual_seed(0)
    return write(format, Path(tempfile.mkdtemp(prefix="any-files-")) / "layers.2")


@functools.cache
def command():
    return composed("task=evaluate", "model.hook=blocks.2.hook_resid_post")


@contextmanager
def changed(format: str, file: str, content: bytes) -> Iterator[Path]:
    """Yield a copy of the SAE in which one file has another content."""
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(template(format), Path(root) / "layers.2")
        (folder / file).write_bytes(content)
        yield folder


def require_right_or_refused(format: str, folder: Path) -> None:
    """Read the SAE, as a notebook does and as a command does. An SAE that is read computes finite numbers."""
    refusals = []
    try:
        sae = load_sae(f"{format}:{folder}")
    except ValueError as error:
        refusals.append(str(error))
    else:
        assert sae(activations()).isfinite().all()
    try:
        found = find_saved_sae(f"{format}:{folder}", "saved", command())
    except ConfigError as error:
        refusals.append(str(error))
    else:
        assert found.list_remarks(found.config) is not None
        assert found.digest()
    assert all(len(refusal.splitlines()) == 1 for refusal in refusals), refusals


@pytest.mark.parametrize("format", CONFIG_FILES)
@settings(max_examples=60, deadline=None)
@given(objects)
def test_any_settings(format, content):
    with changed(format, CONFIG_FILES[format], json.dumps(content).encode()) as folder:
        require_right_or_refused(format, folder)


@pytest.mark.parametrize("format", CONFIG_FILES)
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_value_of_a_setting(format, data):
    file = CONFIG_FILES[format]
    content = json.loads((template(format) / file).read_text())
    levels = [content, *(value for value in content.values() if isinstance(value, dict))]
    level = data.draw(st.sampled_from(range(len(levels))))
    name = data.draw(st.sampled_from([*levels[level], *NAMES]))
    levels[level][name] = data.draw(values)
    with changed(format, file, json.dumps(content).encode()) as folder:
        require_right_or_refused(format, folder)


@pytest.mark.parametrize(("format", "file"), [(format, file) for format in FORMATS for file in FILES[format]])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_truncation_is_refused(format, file, data):
    whole = (template(format) / file).read_bytes()
    left = data.draw(st.integers(0, len(whole) - 1))
    with changed(format, file, whole[:left]) as folder:
        require_right_or_refused(format, folder)
        if file.endswith(".json") and whole[left:].strip() == b"":
            return  # only the line break at the end is missing
        with pytest.raises(ValueError, match=rf"cannot be read as {format} \({file} (is|has|must)"):
            load_sae(f"{format}:{folder}")


@pytest.mark.parametrize(("format", "file"), [(format, file) for format in FORMATS for file in FILES[format]])
@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes(format, file, first, second):
    whole = (template(format) / file).read_bytes()
    for content in (first, whole[:8] + first, whole[: len(whole) // 2] + first + second):
        with changed(format, file, content) as folder:
            require_right_or_refused(format, folder)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 14028008\n"
INSTEAD = {
    "pointer": (POINTER, "is a Git LFS pointer, not the content", "run `git lfs pull` in its repository"),
    "empty": (b"", "is empty", "download or copy it again"),
    "page": (
        b"<!DOCTYPE html><html>Log in</html>",
        "is a web page, not the content",
        "download or copy it again, with",
    ),
    "noise": (b"\x00\xff" * 50, "is damaged, cut short or of another kind", "download or copy it again"),
}


@pytest.mark.parametrize("instead", INSTEAD)
@pytest.mark.parametrize(("format", "file"), [(format, file) for format in FORMATS for file in FILES[format]])
def test_a_file_of_another_kind_is_explained_before_anything_is_loaded(format, file, instead):
    content, problem, fix = INSTEAD[instead]
    with changed(format, file, content) as folder:
        with pytest.raises(ConfigError) as refused:
            find_saved_sae(f"{format}:{folder}", "saved", command())
        assert f"cannot be read as {format} ({file} {problem}" in str(refused.value)
        assert f"Fix: {fix}" in str(refused.value)


@pytest.mark.parametrize(("format", "file"), [(format, file) for format in FORMATS for file in FILES[format]])
def test_a_file_that_may_not_be_read_is_explained(format, file, monkeypatch):
    """Tests may run as root, who may read everything, so the refusal of the operating system is imitated."""
    import builtins

    real = builtins.open

    def refuse(name, *arguments, **options):
        if str(name).endswith(file):
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, *arguments, **options)

    with changed(format, file, (template(format) / file).read_bytes()) as folder:
        monkeypatch.setattr(builtins, "open", refuse)
        monkeypatch.setattr("io.open", refuse)
        monkeypatch.setattr("sae_sweeps.formats.files.safe_open", refuse)
        with pytest.raises(ConfigError) as refused:
            find_saved_sae(f"{format}:{folder}", "saved", command())
        assert f"cannot be read as {format} ({file} cannot be read (Permission denied))" in str(refused.value)
        assert f"chmod a+r {file}" in str(refused.value)
