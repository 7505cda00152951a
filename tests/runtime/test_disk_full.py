"""A full disk fails only the point that could not be saved, and that point resumes later to the same bytes."""

import errno
import os
import re
import subprocess

import pytest
import safetensors.torch
from safetensors import SafetensorError

from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks.run_packs import run_packs
from sae_sweeps.training import checkpoints
from tests.conftest import composed, launch

NAMES = ("k3", "k4", "k5")
FULL = OSError(errno.ENOSPC, "No space left on device")
FULL_IN_SAFETENSORS = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
QUOTA = OSError(errno.EDQUOT, "Disk quota exceeded")


def sweep_in(folder, tiny) -> tuple[Sweep, list[Point]]:
    sweep = Sweep(folder / "sweep")
    points = [Point(composed(*tiny, f"k={name[1:]}"), sweep.folder / name) for name in NAMES]
    sweep.add({point.name: point.config for point in points})
    return sweep, points


def weights(points) -> list[bytes]:
    return [(point.folder / "sae" / "sae_weights.safetensors").read_bytes() for point in points]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny) -> list[bytes]:
    """The weights of the points when the disk is never full."""
    sweep, points = sweep_in(tmp_path_factory.mktemp("undisturbed"), tiny)
    assert run_packs(sweep, points, Limits()) == {}
    return weights(points)


def break_saving(monkeypatch, function, error):
    """Make saving a checkpoint of point k4 fail from the third on, at once (`save`) or within a file (`save_file`)."""
    module = checkpoints if function == "save" else safetensors.torch
    original, saved = getattr(module, function), 0

    def broken(*arguments):
        nonlocal saved
        path = arguments[0] if function == "save" else arguments[1]
        if "k4" in path.parts:
            saved += 1
            if saved >= 3:
                if function == "save_file":
                    path.write_bytes(b"half of a state")
                raise error
        return original(*arguments)

    monkeypatch.setattr(module, function, broken)


@pytest.mark.parametrize(
    ("function", "error"), [("save", FULL), ("save", QUOTA), ("save_file", FULL), ("save_file", FULL_IN_SAFETENSORS)]
)
def test_a_point_that_cannot_be_saved_fails_alone_and_resumes_later(
    tmp_path, tiny, undisturbed, monkeypatch, function, error
):
    sweep, points = sweep_in(tmp_path, tiny)
    with monkeypatch.context() as patch:
        break_saving(patch, function, error)
        failures = run_packs(sweep, points, Limits())
    assert list(failures) == ["k4"]
    folder = points[1].folder
    full = "your quota is used up" if error is QUOTA else "the disk is full"
    assert failures["k4"].startswith(full)
    if function == "save_file":  # the error of a file that was being written names the disk
        assert re.match(rf"{full}: /.* has [\d,.]+ MiB free, at {folder / 'checkpoint'}", failures["k4"])
    assert "\n" not in failures["k4"]
    assert (point_state.read_state(folder).state, point_state.read_state(folder).reason) == ("failed", failures["k4"])
    known = sweep.read()["points"]
    assert {name: point["state"] for name, point in known.items()} == {"k3": "done", "k4": "failed", "k5": "done"}
    assert known["k4"]["reason"] == failures["k4"]
    assert not list((folder / "checkpoint").glob(".*"))  # which would take disk space from other points
    state = checkpoints.load_newest(folder / "checkpoint", folder.name)
    assert (state is not None and int(state["steps_done"])) == checkpoints.newest_step(folder / "checkpoint") == 14
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


def test_a_failure_that_cannot_be_recorded_fails_nothing_else(tmp_path, tiny, monkeypatch):
    """On a full disk neither the point's folder nor sweep.json can be written."""
    sweep, points = sweep_in(tmp_path, tiny)
    write_state = point_state.write_state

    def full(folder, state, reason=None):
        if state == "failed":
            raise FULL
        write_state(folder, state, reason)

    def full_sweep_json(self, change):
        raise FULL

    with monkeypatch.context() as patch:
        break_saving(patch, "save", FULL)
        patch.setattr(point_state, "write_state", full)
        patch.setattr(Sweep, "update", full_sweep_json)
        failures = run_packs(sweep, points, Limits())
    assert list(failures) == ["k4"]
    assert [point_state.is_done(point.folder) for point in points] == [True, False, True]
    assert point_state.read_state(points[1].folder).state == "interrupted"
    assert run_packs(sweep, points, Limits()) == {}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 640 KiB for the sweep `small`."""
    folder = tmp_path / "outputs" / "small"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_sweep_on_a_full_file_system_fails_and_resumes_with_more_space(tmp_path, tiny, small_disk):
    done = launch("-m", *tiny, "k=3,4", "dict_size=512", "name=small", cwd=tmp_path)
    assert done.returncode == 1
    assert f"the disk is full: {small_disk} has 0." in done.stdout
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    sweep = Sweep(small_disk)
    assert {point["state"] for point in sweep.read()["points"].values()} == {"failed"}
    assert {checkpoints.newest_step(point.folder / "checkpoint") for point in sweep.points()} == {7}
    assert run_packs(sweep, sweep.points(), Limits()) == {}
    roomy = Sweep(tmp_path / "roomy")
    configs = {f"k{k}": composed(*tiny, f"k={k}", "dict_size=512") for k in (3, 4)}
    roomy.add(configs)
    points = [Point(config, roomy.folder / name) for name, config in configs.items()]
    assert run_packs(roomy, points, Limits()) == {}
    assert weights(sweep.points()) == weights(points)
