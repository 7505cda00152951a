"""Memory and open files stay the same from pack to pack, and a pack of hundreds of points needs few open files."""

import re
import subprocess
import sys
from functools import partial

import psutil
import pytest

from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import train
from tests.conftest import composed

pytestmark = pytest.mark.long

PACKS, WARM_UP = 40, 8
GROWTH = 0.05


def test_packs_in_a_row_leave_neither_memory_nor_open_files(tmp_path, tiny):
    process, used = psutil.Process(), []
    for number in range(PACKS):
        config = composed(*tiny, "training.tokens=600", f"dataset.seed={number}", "tracking=offline")
        errors: list[Exception | None] = []
        train.run([Point(config, tmp_path / str(number))], Limits(), SweepProgress(1), partial(_note, errors))
        assert errors == [None]
        services = process.children()
        used.append((process.memory_full_info().uss, process.num_fds(), sum(one.num_fds() for one in services)))
    for kind, (first, last) in {
        name: (sorted(values[WARM_UP:-WARM_UP])[0], sorted(values[-WARM_UP:])[0])
        for name, values in zip(("memory", "files", "files of W&B's service"), zip(*used, strict=True), strict=True)
    }.items():
        assert last <= first * (1 + GROWTH), f"{kind}: {first} grew to {last}"


def _note(errors: list[Exception | None], point: Point, error: Exception | None) -> None:
    errors.append(error)


def test_a_pack_of_60_points_runs_with_80_open_files(tmp_path, tiny):
    seeds = ",".join(map(str, range(60)))
    words = [*tiny, "training.tokens=120", "evaluation.tokens=50", "-m", f"seed={seeds}", "name=many"]
    command = ["bash", "-c", 'ulimit -n 80; exec "$@"', "bash", sys.executable, str(PROJECT / "launch.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert len(list(tmp_path.glob("outputs/many/*/results.json"))) == 60
    assert len(re.findall("^ran [0-9]+ points? in", done.stdout, re.MULTILINE)) == 2
    assert "more files can be open at a time" in done.stdout
