"""The checks before a sweep: made once for points with equal settings, and skipped where a problem is known."""

import pytest

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import preflight
from sae_sweeps.sweep.preflight import Preflight, unwritable_error
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
    assert str(error).startswith(
        "output_root=/locked/sweep: cannot be written (no permission to use /locked/sweep: the folder / belongs to "
    )
    assert str(error).endswith(" Fix: set output_root to a writable folder")
