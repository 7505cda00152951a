"""The checks before a sweep: made once for points with equal settings, and skipped where a problem is known."""

import gzip

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


def test_a_folder_that_cannot_be_written_is_named_with_its_setting():
    error = unwritable_error("/locked/sweep", PermissionError(13, "Permission denied"))
    assert str(error) == (
        "output_root=/locked/sweep: cannot be written (Permission denied). Fix: set output_root to a writable folder"
    )


@pytest.mark.parametrize(
    ("name", "format", "content", "problem"),
    [
        ("a.jsonl", "json", b'{"text": "fine"}\n{"text": ["a", "list"]}\n', "row 1 (line 2) holds a list"),
        ("a.jsonl", "json", b'{"body": "x"}\n', "has no such column; the columns are body"),
        ("a.jsonl", "json", b"", "there is no document with text"),
        ("a.jsonl.gz", "json", gzip.compress(b'{"text": "fine"}\n' * 500)[:40], "is cut off or damaged"),
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
