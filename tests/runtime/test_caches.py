"""A user without a writable home: help, local models and W&B work, and the hub names HF_HOME."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_sweeps.activations import hub
from sae_sweeps.runtime.caches import PASSING, WITHOUT_HOME, is_writable
from sae_sweeps.runtime.errors import OutOfReachError
from sae_sweeps.runtime.places import PROJECT

SHOW = """
import os
from sae_sweeps.runtime.caches import provide_caches
provide_caches()
print({name: value for name, value in os.environ.items() if name in %r})
"""


def test_a_folder_is_writable_if_its_first_existing_parent_is(tmp_path):
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    assert is_writable(tmp_path)
    assert is_writable(tmp_path / "new" / "folder")
    assert not is_writable(file / "folder")
    assert not is_writable(tmp_path / "nowhere" / "folder")
    assert not is_writable(Path("~/.cache"))
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert not is_writable(tmp_path / "new")


def show(home: Path | str, **variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in (*PASSING, *WITHOUT_HOME, "XDG_CACHE_HOME")}
    environment = {**kept, "HOME": str(home), **variables}
    command = [sys.executable, "-c", SHOW % ((*PASSING, *WITHOUT_HOME),)]
    return eval(
        subprocess.run(command, capture_output=True, env=environment, cwd=PROJECT, check=True, text=True).stdout
    )


def test_libraries_keep_their_caches_in_a_writable_home(tmp_path):
    assert show(tmp_path) == {}


@pytest.mark.parametrize("home", ["file", "file/below", "/dev/null", "/proc/version/home"])
def test_libraries_get_temporary_caches_without_a_writable_home(tmp_path, home):
    (tmp_path / "file").touch()
    given = show(tmp_path / home, MPLCONFIGDIR="mine")
    assert given.keys() == set(PASSING)  # settings in a home that can only be read are still read
    assert given.pop("MPLCONFIGDIR") == "mine"
    assert not any(Path(folder).parent.exists() for folder in given.values())  # removed with the process


def test_an_unwritable_cache_home_counts_too(tmp_path):
    assert show(tmp_path, XDG_CACHE_HOME="/dev/null").keys() == set(PASSING)


@pytest.mark.parametrize("folder", ["relative", "~nosuchuser/hub", "/dev/null/hub", "/proc/version"])
def test_the_hub_names_hf_home_if_its_cache_cannot_be_written(monkeypatch, folder):
    import huggingface_hub.constants

    def unasked(*arguments, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", folder)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", unasked)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    for check in (
        lambda: hub.require_repository("model.name", "some/model", "model"),
        lambda: hub.require_dataset_cache("some/model"),
    ):
        with pytest.raises(OutOfReachError, match=r"=some/model: comes from the hub.* Fix: .*export HF_HOME=/FOLDER"):
            check()


def test_a_model_in_a_cache_that_can_only_be_read_is_taken(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "is_writable", lambda folder: False)
    (tmp_path / "models--some--model" / "snapshots").mkdir(parents=True)
    hub.require_repository("model.name", "some/model", "model")


def test_help_works_without_a_home(tmp_path):
    """In a user namespace this process belongs to a user that the system does not know."""
    unknown = ["unshare", "--user", "--map-user=12345"]
    if subprocess.run([*unknown, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs user namespaces")
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    command = [*unknown, sys.executable, str(PROJECT / "launch.py"), "--help"]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    assert "Groups (group=choice)" in done.stdout
    assert list(tmp_path.iterdir()) == []
