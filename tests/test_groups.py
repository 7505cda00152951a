"""Slow tests that share a fixture share a worker."""

import os
import subprocess
import sys

import pytest

from sae_sweeps.runtime.places import PROJECT
from tests.integration.groups import find_group


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/integration/test_kills.py::test_a[x::y]", "tests/integration/test_kills.py"),
        ("tests/integration/report_page/test_page.py::test_a", "tests/integration/report_page"),
        ("tests/integration/test_slurm.py::test_a", "tests/integration/test_slurm.py::test_a"),
    ],
)
def test_tests_are_grouped_by_file_and_fixture(test, group):
    assert find_group(test) == group


def test_a_group_stays_on_one_worker(tmp_path):
    """Two files of a folder report_page/, with two workers, and a fixture that each worker would make."""
    folder = tmp_path / "report_page"
    folder.mkdir()
    for name in ("a", "b"):
        write = f"open({str(tmp_path / 'ran')!r}, 'a').write(str(os.getpid()) + ' ')"
        tests = [f"def test_{name}{at}(): {write}" for at in range(4)]
        (folder / f"test_{name}.py").write_text("\n".join(["import os", *tests]))
    hook = "from tests.conftest import pytest_xdist_make_scheduler  # noqa: F401\n"
    (tmp_path / "conftest.py").write_text(hook)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    workers = (tmp_path / "ran").read_text().split()
    assert len(workers) == 8
    assert len(set(workers)) == 1
