"""The checks before a sweep: made once for points with equal settings, and skipped where a problem is known."""

import gzip
import shutil

import pytest

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import preflight
from sae_sweeps.sweep.preflight import INPUT_CHECKS, Preflight, unwritable_error
from tests.conftest import composed


@pytest.fixture
def counting():
    """A check that counts its calls and refuses every configuration."""

    def check(config):
        check.calls += 1
        raise ConfigError("dataset.files", config.dataset.files, "is refused", "another file")

    check.calls = 0
    return check


def test_a_check_is_made_once_for_points_with_equal_settings(counting):
    checks, made = {counting: ("dataset.",)}, Preflight()
    first, second = (made.find_problems(composed(f"k={k}"), checks) for k in (16, 32))
    assert [error.problem for error in first] == ["is refused"]
    assert second == first
    assert counting.calls == 1
    made.find_problems(composed("dataset.seq_len=64"), checks)
    assert counting.calls == 2


def test_a_check_is_skipped_if_its_setting_already_has_a_problem(counting):
    errors = Preflight().find_problems(composed("dataset.seq_len=0"), {counting: ("dataset.",)})
    assert counting.calls == 0
    assert all(error.setting.startswith("dataset.") for error in errors)
    assert errors


def test_a_file_that_cannot_be_read_is_a_problem_of_the_checks_setting(monkeypatch):
    def check(config):
        raise PermissionError(13, "Permission denied", "/secret/text")

    monkeypatch.setitem(preflight.CHECKS, check, ("dataset.",))
    (error,) = Preflight().find_problems(composed(), {check: ("dataset.",)})
    assert str(error) == (
        "dataset=/secret/text: cannot be read (Permission denied). Fix: make sure that it exists and is readable"
    )


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", POINTER, "its file model.safetensors is a Git LFS pointer"),
        ("model.safetensors", None, "the folder has no weights"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{", "its file model.safetensors is cut"),
        ("tokenizer.json", POINTER, "its file tokenizer.json is a Git LFS pointer"),
        ("tokenizer.json", b'{"model": ', "its file tokenizer.json is not JSON"),
        ("tokenizer.json", b'{"model": 3}', "its tokenizer.json cannot be read"),
        ("config.json", POINTER, "its config.json is a Git LFS pointer"),
        ("config.json", b'{"architectures": ["BertForMaskedLM"]}', "fills in masked tokens"),
    ],
)
def test_a_damaged_model_is_one_error_before_anything_is_loaded(tiny_model, tiny, tmp_path, file, content, message):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    (error,) = Preflight().find_problems(composed(*tiny, f"model.name={folder}"), preflight.INPUT_CHECKS)
    assert message in str(error)


def test_a_tokenizer_without_bos_is_refused_only_if_bos_is_wanted(tiny_model, tiny, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"bos_token": null, "tokenizer_class": "Qwen2Tokenizer"}')
    words = [*tiny, f"model.name={folder}"]
    (error,) = Preflight().find_problems(composed(*words), preflight.INPUT_CHECKS)
    assert str(error) == (
        "dataset.prepend_bos=True: the model's tokenizer has no BOS token. Fix: dataset.prepend_bos=false"
    )
    assert not Preflight().find_problems(composed(*words, "dataset.prepend_bos=false"), preflight.INPUT_CHECKS)


def test_a_folder_that_cannot_be_written_is_named_with_its_setting():
    error = unwritable_error("/locked/sweep", PermissionError(13, "Permission denied"))
    assert str(error).startswith(
        "output_root=/locked/sweep: cannot be written (no permission to use /locked/sweep: the folder / belongs to "
    )
    assert str(error).endswith(" Fix: set output_root to a writable folder")


@pytest.mark.parametrize("exclude", ["[300]", "[0,99999]", "[of a]", "[no such token]"])
def test_an_excluded_token_that_the_tokenizer_does_not_have_is_found_before_the_model_is_loaded(tiny, exclude):
    (error,) = Preflight().find_problems(composed(*tiny, f"dataset.exclude={exclude}"))
    assert str(error).startswith("dataset.exclude=[")
    assert not Preflight().find_problems(composed(*tiny, "dataset.exclude=[0, of, '<|endoftext|>']"))


@pytest.mark.parametrize(
    ("name", "format", "content", "problem"),
    [
        ("a.jsonl", "json", b'{"text": "fine"}\n{"text": ["a", "list"]}\n', "row 1 (line 2) holds a list"),
        ("a.jsonl", "json", b'{"body": "x"}\n', "has no such column; the columns are body"),
        ("a.jsonl", "json", b"", "there is no document with text"),
        ("a.jsonl.gz", "json", gzip.compress(b'{"text": "fine"}\n' * 500, mtime=0)[:40], "is cut off or damaged"),
        ("a.txt.zst", "text", b"no zstd", "has the ending .zst, but is not compressed"),
        ("a.txt", "text", b"caf\xe9 " * 200, "is not UTF-8 text"),
        ("a.parquet", "parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("a.txt", "text", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ],
)
def test_text_that_cannot_be_read_is_found_before_a_model_is_loaded(tmp_path, name, format, content, problem):
    (tmp_path / name).write_bytes(content)
    config = composed(f"dataset={format}", f"dataset.files={tmp_path}/{name}")
    (error,) = Preflight().find_problems(config, INPUT_CHECKS)
    assert problem in str(error)


def test_only_the_start_of_a_large_text_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "SMALL_TEXT_BYTES", 10)
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": 5}\n')
    (tmp_path / "b.jsonl").write_text("")
    settings = ("dataset=json", f"dataset.files={tmp_path}/*.jsonl")
    assert Preflight().find_problems(composed(*settings), INPUT_CHECKS) == []
    (tmp_path / "c.jsonl").write_bytes(b"%PDF-1.7")
    (error,) = Preflight().find_problems(composed(*settings), INPUT_CHECKS)
    assert "c.jsonl: is a PDF file" in str(error)
