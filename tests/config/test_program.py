"""Messages name commands that work when they are typed, however the program was started."""

import pytest

from sae_sweeps.config import commands


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.setenv(commands.PROGRAM, "")  # so that it is restored
    monkeypatch.delenv(commands.PROGRAM)


@pytest.mark.parametrize(
    ("script", "spelled"),
    [
        ("launch.py", "python launch.py"),
        ("../my sweeps/launch.py", "python '../my sweeps/launch.py'"),
        ("/x/site-packages/sae_sweeps/__main__.py", "python -m sae_sweeps"),
        ("/nowhere/bin/sae-sweeps", "/nowhere/bin/sae-sweeps"),
    ],
)
def test_a_command_is_spelled_as_it_was_typed(script, spelled, monkeypatch):
    monkeypatch.setattr("sys.argv", [script, "k=3"])
    commands.record_program()
    assert commands.format_command("status", "ks") == f"{spelled} task=status name=ks"


def test_a_command_on_the_path_is_named_without_its_folder(tmp_path, monkeypatch):
    script = tmp_path / "sae-sweeps"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(script)])
    commands.record_program()
    assert commands.program() == "sae-sweeps"


def test_the_users_own_words_and_those_of_the_command_that_submitted_a_job_hold(monkeypatch):
    monkeypatch.setenv(commands.PROGRAM, "./sweep.sh")
    monkeypatch.setattr("sys.argv", ["node.py"])
    commands.record_program()
    assert commands.program() == "./sweep.sh"


@pytest.mark.parametrize(("is_installed", "spelled"), [(True, "sae-sweeps"), (False, "python launch.py")])
def test_without_a_command_as_in_a_notebook_the_usual_one_is_named(is_installed, spelled, monkeypatch):
    monkeypatch.setattr(commands, "IS_INSTALLED", is_installed)
    assert commands.program() == spelled
