"""Whatever is in the files of an SAE: it is read right, or refused in one line; never another error, never a guess.

No path that comes from it leaves the folder of the results.
"""

import dataclasses
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

from sae_sweeps.config.tasks import EXPORTS
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.saved_saes import find_saved_sae
from sae_sweeps.tasks.export import export
from sae_sweeps.tasks.study import Study
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
    24,
]
HOSTILE = [
    *("../../../escaped", "/tmp/escaped/x", "..", ".", "a/b", "a\\b", "a\x00b", "a\nb", "\x1b[2J", "\u202egpj.exe"),
    *("blocks.2.hook_resid_post/../../x", "<img src=x onerror=alert(1)>", "x" * 300, "\ud800", 10**30, -1, [[[]]]),
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(RIGHT)
scalars |= st.sampled_from(HOSTILE)
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
def command(task: str = "evaluate"):
    return composed(f"task={task}", "model.hook=blocks.2.hook_resid_post", "model.aliases=[owner/model]")


@contextmanager
def changed(format: str, file: str, content: bytes) -> Iterator[Path]:
    """Yield a copy of the SAE in which one file has another content. Only `outputs` beside it may be written."""
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(template(format), Path(root) / "a" / "b" / "layers.2")
        (folder / file).write_bytes(content)
        before = contents(Path(root))
        yield folder
        assert contents(Path(root)) == before
        assert not Path("/tmp/escaped").exists()


def contents(root: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of the last change of all files and folders in `root`, but for those in `outputs`."""
    found = root.rglob("*")
    paths = [path for path in found if path.name != "b" and "outputs" not in path.relative_to(root).parts]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def require_right_or_refused(format: str, folder: Path) -> None:
    """Read the SAE, as a notebook does and as a command does. An SAE that is read computes finite numbers."""
    refusals = []
    try:
        sae = load_sae(f"{format}:{folder}")
    except ValueError as error:
        refusals.append(str(error))
    else:
        assert sae(activations()).isfinite().all()
    outputs = folder.parent / "outputs"
    for task, use in {"evaluate": name_study, "export": export_one}.items():
        try:
            found = find_saved_sae(f"{format}:{folder}", "saved", command(task))
        except ConfigError as error:
            refusals.append(str(error))
        else:
            assert found.list_remarks(found.config) is not None
            assert found.digest()
            refusals += use(found, outputs)
    assert all(len(refusal.splitlines()) == 1 for refusal in refusals), refusals


def name_study(found, outputs: Path) -> list[str]:
    """Require that a study of an SAE has a folder of its own in the sweep's."""
    study = Study.from_command("evaluate", Sweep(outputs / "h"), command(), found.title, {"sae": found}, {})
    assert study.folder.resolve().parent == (outputs / "h" / "evaluate").resolve()
    return []


def export_one(found, outputs: Path) -> list[str]:
    """Export an SAE in one of the formats. Returns the refusals."""
    format = EXPORTS[sum(file.stat().st_size for file in found.located.files) % len(EXPORTS)]
    written, failures = export([found], outputs / format, dataclasses.replace(command("export"), format=format))
    files = [file for files in written.values() for file in files]
    assert all(file.resolve().is_relative_to((outputs / format).resolve()) for file in files)
    return failures


def read_settings(format: str, content: dict) -> None:
    """Read an SAE with these settings."""
    with changed(format, CONFIG_FILES[format], json.dumps(content).encode()) as folder:
        require_right_or_refused(format, folder)


def read_changed_setting(format: str, data: st.DataObject) -> None:
    """Read an SAE of which one setting has any value."""
    file = CONFIG_FILES[format]
    content = json.loads((template(format) / file).read_text())
    levels = [content, *(value for value in content.values() if isinstance(value, dict))]
    level = data.draw(st.sampled_from(range(len(levels))))
    name = data.draw(st.sampled_from([*levels[level], *NAMES]))
    levels[level][name] = data.draw(values)
    with changed(format, file, json.dumps(content).encode()) as folder:
        require_right_or_refused(format, folder)


@pytest.mark.parametrize("format", CONFIG_FILES)
@settings(max_examples=30, deadline=None)
@given(objects)
def test_any_settings(format, content):
    read_settings(format, content)


@pytest.mark.parametrize("format", CONFIG_FILES)
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_value_of_a_setting(format, data):
    read_changed_setting(format, data)


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
