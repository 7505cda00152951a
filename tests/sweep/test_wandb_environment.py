"""W&B's environment variables and settings file: those that it cannot use are refused before the first point."""

import os
import sys

import pytest

from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.preflight import Preflight
from sae_sweeps.sweep.wandb_environment import describe_wandb_error, find_problem
from tests.conftest import composed, launch

KEY = "local" + 40 * "0"


@pytest.fixture(autouse=True)
def without_variables(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("name", "value", "problem", "fix"),
    [
        ("WANDB_API_KEY", KEY[:20] + " " + KEY[20:], "has a blank or a line break", "without spaces"),
        ("WANDB_API_KEY", KEY + "\n", "has a blank or a line break", "wandb login"),
        ("WANDB_API_KEY", "a" * 39, "must have 40+ characters, has 39", "settings page"),
        ("WANDB_API_KEY", "a" * 39 + "$", "may only contain", "settings page"),
        ("WANDB_API_KEY", "ä" * 40, "has a letter that no key has", "settings page"),
        ("WANDB_PROJECT", "team/project", "Invalid project name", "tracking.project=NAME tracking.entity=TEAM"),
        ("WANDB_PROJECT", "a#b", "Invalid project name", "tracking.project"),
        ("WANDB_ENTITY", "team/project", "must be the name of a user or team", "tracking.entity=TEAM"),
        ("WANDB_ENTITY", "https://wandb.ai/team", "must be the name of a user or team", "tracking.entity=TEAM"),
        ("WANDB_BASE_URL", "wandb.mylab.org", "valid URL", "WANDB_BASE_URL=https://HOST"),
        ("WANDB_BASE_URL", "ftp://wandb.mylab.org", "URL", "WANDB_BASE_URL=https://HOST"),
        ("WANDB_BASE_URL", "http://host:99999", "port", "WANDB_BASE_URL=https://HOST"),
        ("WANDB_MODE", "on", "'online', 'offline'", "tracking=online, offline or off"),
        ("WANDB_DIR", "/proc/nothing", "cannot be written", "a folder that you can write to"),
        ("WANDB_CACHE_DIR", "/proc/1/nothing", "cannot be written", "a folder that you can write to"),
        ("WANDB_TAGS", "a," + "x" * 65, "65 characters", "unset WANDB_TAGS"),
        ("WANDB_SILENT", "maybe", "valid boolean", "unset WANDB_SILENT"),
        ("WANDB_RUN_ID", "a/b", "Run ID cannot contain", "unset WANDB_RUN_ID"),
        ("WANDB_INIT_TIMEOUT", "soon", "valid number", "unset WANDB_INIT_TIMEOUT"),
        ("WANDB_SERVICE", "elsewhere", "Failed to parse", "unset WANDB_SERVICE"),
        ("WANDB_SWEEP_ID", "abc", "another W&B run", "unset WANDB_SWEEP_ID"),
        ("WANDB_RESUME_FROM", "abc?_step=1", "another W&B run", "unset WANDB_RESUME_FROM"),
        ("WANDB_X_SKIP_TRANSACTION_LOG", "true", "offline mode", "unset WANDB_X_SKIP_TRANSACTION_LOG"),
    ],
)
def test_a_value_that_wandb_cannot_use_is_one_error(monkeypatch, name, value, problem, fix):
    monkeypatch.setenv(name, value)
    error = find_problem()
    assert error is not None
    assert error.setting == name
    assert problem in error.problem
    assert fix in error.fix
    assert "\n" not in str(error)
    if name == "WANDB_API_KEY":
        assert value.strip() not in str(error)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WANDB_API_KEY": KEY},
        {"WANDB_API_KEY": "company-" + "a1_" * 20},
        {"WANDB_API_KEY": ""},
        {"WANDB_PROJECT": "my project", "WANDB_ENTITY": "my-team.2"},
        {"WANDB_BASE_URL": "http://localhost:8080", "WANDB_MODE": "disabled", "WANDB_DISABLED": "true"},
        {"WANDB_RUN_GROUP": "other", "WANDB_NAME": "other", "WANDB_TAGS": "a,b", "WANDB_RESUME": "must"},
        {"WANDB_SOMETHING_NEW": "x", "HOME": "/"},
    ],
)
def test_a_value_that_wandb_can_use_is_accepted(variables):
    assert find_problem(variables) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [("[default]\nbase_url = wandb.mylab.org\n", "valid URL"), ("[default]\nproject = a/b\n", "Invalid project name")],
)
def test_a_settings_file_that_wandb_cannot_use_is_one_error(tmp_path, monkeypatch, text, problem):
    file = tmp_path / "settings"
    file.write_text(text)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    error = find_problem()
    assert error is not None
    assert problem in error.problem
    assert str(file) in str(error)
    file.write_text("[default]\nbase_url = https://wandb.mylab.org\n")
    assert find_problem() is None


def test_tracking_off_needs_no_variables(tiny, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "wandb.mylab.org")
    assert Preflight().find_problems(composed(*tiny, "k=4", "name=a")) == []
    (error,) = Preflight().find_problems(composed(*tiny, "k=4", "name=a", "tracking=offline"))
    assert error.setting == "WANDB_BASE_URL"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("tracking.project", value) for value in ("team/project", "a:b", "", " a", "x" * 129)),
        *(("tracking.entity", value) for value in ("team/project", "a b", "https://wandb.ai/team")),
    ],
)
def test_names_that_wandb_refuses_are_refused_in_settings(setting, value):
    group, _, name = setting.partition(".")
    config = composed("tracking=offline")
    setattr(getattr(config, group), name, value)
    assert [error.setting for error in find_problems(config)] == [setting]


def test_a_command_with_a_wrong_key_runs_nothing_and_does_not_print_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret key")
    done = launch(*tiny, "k=4", "name=a", "tracking=offline", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: WANDB_API_KEY=...: has a blank")
    assert "secret" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("outputs/a/*/results.json"))


def test_an_error_of_wandb_is_described_in_one_line():
    import wandb

    with pytest.raises(ValueError, match="validation error") as raised:
        wandb.Settings(run_tags=["x" * 80])
    assert describe_wandb_error(raised.value).startswith("Tag 'xxx")
    assert describe_wandb_error(wandb.Error("first\nsecond")) == "first"
    assert describe_wandb_error(ConfigError("a", 1, "b", "c")) == "a=1: b. Fix: c"


def test_a_broken_installation_of_wandb_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("raise TypeError('Descriptors cannot be created directly')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name == "wandb" or name.startswith("wandb.")]:
        monkeypatch.delitem(sys.modules, name)
    error = find_problem({"WANDB_MODE": "offline"})
    assert error is not None
    assert "cannot be imported (Descriptors cannot be created directly)" in str(error)
