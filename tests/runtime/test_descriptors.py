"""The limit of open files is raised, and packs are as large as what is left of it."""

import resource
import subprocess
import sys

import pytest

from sae_sweeps.runtime import descriptors
from sae_sweeps.runtime.places import PROJECT

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from sae_sweeps.runtime import descriptors
descriptors.raise_limit()
files = [open("/dev/null") for _ in range({opened})]
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], descriptors.count_free())
"""


def limited(soft, hard, opened=0):
    script = LIMITED.format(soft=soft, hard=hard, opened=opened)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=PROJECT
    )
    return list(map(int, done.stdout.split()))


def test_the_soft_limit_becomes_the_hard_one():
    assert limited(100, 500)[0] == 500


def test_files_that_are_open_are_subtracted_from_the_limit():
    limit, free = limited(200, 200)
    assert limit == 200
    assert 140 < free < 200 - descriptors.RESERVE
    assert limited(200, 200, opened=100)[1] == free - 100
    assert limited(200, 200, opened=free + 5)[1] == 0


@pytest.mark.parametrize("hard", [resource.RLIM_INFINITY, 10**9])
def test_a_limit_without_end_is_raised_to_a_finite_one(monkeypatch, hard):
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: found.append(limits))
    descriptors.raise_limit()
    assert found == [(descriptors.MOST, hard)]


def test_a_limit_that_cannot_be_raised_stays(monkeypatch):
    def refuse(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_limit()
    assert descriptors.read_limit() == 256
