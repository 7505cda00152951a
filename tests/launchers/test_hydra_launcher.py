"""Hydra's files in the points' folders: a point whose folder cannot be written does not stop the others."""

import errno
import os
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn

from sae_sweeps.launchers import hydra_launcher, jobs
from sae_sweeps.launchers.jobs import Job
from sae_sweeps.launchers.local import PackLauncher
from tests.launchers.test_leaving_out import compose_sweep


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """A launcher of points with k of 3, 4 and 5, which are prepared in this order, and the errors of some."""
    launcher = PackLauncher()
    launcher.config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path / "sweep"))))
    context = jobs.HydraContext(None, jobs.Callbacks())
    launcher._jobs = [Job(context, None, config) for config in compose_sweep(k=[3, 4, 5])]
    launcher.errors, launcher.prepared = {}, []

    def run_job(config, **_):
        if config.k in launcher.errors:
            raise launcher.errors[config.k]
        launcher.prepared.append(config.k)
        return JobReturn()

    monkeypatch.setattr(jobs, "run_job", run_job)
    monkeypatch.setattr(hydra_launcher.OmegaConf, "save", lambda *_: None)
    return launcher


def prepare(launcher):
    launcher.prepare([job.name for job in launcher._jobs])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_point_that_cannot_be_written_does_not_stop_the_others(launcher, number):
    launcher.errors[4] = OSError(number, os.strerror(number), "sweep/b/.hydra/config.yaml")
    prepare(launcher)
    assert launcher.prepared == [3, 5]


def test_a_full_disk_stops_the_command(launcher):
    launcher.errors[4] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        prepare(launcher)
