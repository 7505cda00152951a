"""Hydra's files in the points' folders: a point whose folder cannot be written does not stop the others."""

import errno
import os
from types import SimpleNamespace

import pytest

from sae_sweeps.launchers import hydra_launcher
from sae_sweeps.launchers.local import PackLauncher


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """A launcher of the points a, b and c, which are prepared in this order, and the errors of some."""
    launcher = PackLauncher()
    launcher.hydra_context = None
    launcher.config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path / "sweep"))))
    launcher._composed = {name: name for name in "abc"}
    launcher.errors, launcher.prepared = {}, []

    def run_job(config, **_):
        if config in launcher.errors:
            raise launcher.errors[config]
        launcher.prepared.append(config)

    monkeypatch.setattr(hydra_launcher, "run_job", run_job)
    monkeypatch.setattr(hydra_launcher.OmegaConf, "save", lambda *_: None)
    return launcher


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_point_that_cannot_be_written_does_not_stop_the_others(launcher, number):
    launcher.errors["b"] = OSError(number, os.strerror(number), "sweep/b/.hydra/config.yaml")
    launcher.prepare("abc")
    assert launcher.prepared == ["a", "c"]


def test_a_full_disk_stops_the_command(launcher):
    launcher.errors["b"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        launcher.prepare("abc")
