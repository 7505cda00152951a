"""`~` and environment variables in paths."""

import os
import pwd

import pytest

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.paths import expand
from tests.conftest import composed


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "$NOWHERE").mkdir()
    (tmp_path / "~").mkdir()


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~/runs", "/home/me/runs"),
        ("~", "/home/me"),
        ("~root/x", f"{pwd.getpwnam('root').pw_dir}/x"),
        ("$SCRATCH/runs", "/scratch/runs"),
        ("/data/run_$SCRATCH", "/data/run_/scratch"),
        ("sae_lens:~/sae", "sae_lens:/home/me/sae"),
        ("$NOWHERE", "$NOWHERE"),  # a folder of this name exists
        ("a~b", "a~b"),
        ("./~/x", "./~/x"),
        ("cost$", "cost$"),
        ("$5", "$5"),
        ("gpt2", "gpt2"),
    ],
)
def test_a_path_is_expanded(path, expanded):
    assert expand(path, "output_root") == expanded


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("~nosuchuser/model", "there is no user nosuchuser"),
        ("$NOWHERE/x", "variable NOWHERE is not set"),
        ("/a/${NOWHERE}".replace("{", "").replace("}", ""), "variable NOWHERE is not set"),
    ],
)
def test_a_path_that_cannot_be_expanded_is_one_line(path, part):
    with pytest.raises(ConfigError, match=part) as caught:
        expand(path, "model.name")
    assert str(caught.value).startswith(f"model.name={path}: ")


def test_an_unknown_home_is_one_line(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(ConfigError, match="the home folder is not known"):
        expand("~/runs", "output_root")


def test_every_path_setting_is_expanded():
    config = composed(
        "output_root='~/runs'",
        "model.name='~/m'",
        "dataset=text",
        "dataset.files=['~/a/*.txt','$SCRATCH/b']",
        "activations.cache='$SCRATCH/c'",
        "export.folder='~/e'",
        "saved='sae_lens:~/s'",
        "small='~/t'",
        "large='$SCRATCH/u'",
    )
    assert (config.output_root, config.model.name) == ("/home/me/runs", "/home/me/m")
    assert config.dataset.files == ["/home/me/a/*.txt", "/scratch/b"]
    assert (config.activations.cache, config.export.folder) == ("/scratch/c", "/home/me/e")
    assert (config.saved, config.small, config.large) == ("sae_lens:/home/me/s", "/home/me/t", "/scratch/u")
