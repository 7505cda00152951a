"""A disk that is full takes the point that could not be saved, and that one goes on later to the same bytes."""

import errno
import os
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
FULL_AS_SAFETENSORS_SAYS = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
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
    """The weights with room for all."""
    sweep, points = sweep_in(tmp_path_factory.mktemp("undisturbed"), tiny)
    assert run_packs(sweep, points, Limits()) == {}
    return weights(points)


def breaking(monkeypatch, what, error):
    """Have writing a state of point k4 break from its third on, at once or when half of a file is written."""
    module = checkpoints if what == "save" else safetensors.torch
    original, saved = getattr(module, what), 0

    def broken(*arguments):
        nonlocal saved
        path = arguments[0] if what == "save" else arguments[1]
        if "k4" in path.parts:
            saved += 1
            if saved >= 3:
                if what == "save_file":
                    path.write_bytes(b"half of a state")
                raise error
        return original(*arguments)

    monkeypatch.setattr(module, what, broken)


@pytest.mark.parametrize(
    ("what", "error"), [("save", FULL), ("save", QUOTA), ("save_file", FULL), ("save_file", FULL_AS_SAFETENSORS_SAYS)]
)
def test_the_point_that_cannot_be_saved_fails_alone_and_goes_on_later(
    tmp_path, tiny, undisturbed, monkeypatch, what, error
):
    sweep, points = sweep_in(tmp_path, tiny)
    with monkeypatch.context() as patch:
        breaking(patch, what, error)
        failures = run_packs(sweep, points, Limits())
    assert list(failures) == ["k4"]
    assert failures["k4"].startswith("the disk is full (")
    assert "\n" not in failures["k4"]
    folder = points[1].folder
    assert (point_state.read_state(folder).state, point_state.read_state(folder).reason) == ("failed", failures["k4"])
    known = sweep.read()["points"]
    assert {name: point["state"] for name, point in known.items()} == {"k3": "done", "k4": "failed", "k5": "done"}
    assert known["k4"]["reason"] == failures["k4"]
    assert not list((folder / "checkpoint").glob(".partial-*"))  # whose bytes others may need
    state = checkpoints.load_newest(folder / "checkpoint")
    assert (state is not None and int(state["steps_done"])) == checkpoints.newest_step(folder / "checkpoint") == 14
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


def test_a_state_that_cannot_be_noted_is_no_failure_of_its_own(tmp_path, tiny, monkeypatch):
    """On a full disk neither the point's folder nor sweep.json can be told of it."""
    sweep, points = sweep_in(tmp_path, tiny)
    note = point_state.write_state

    def full(folder, state, reason=None):
        if state == "failed":
            raise FULL
        note(folder, state, reason)

    def full_too(self, change):
        raise FULL

    with monkeypatch.context() as patch:
        breaking(patch, "save", FULL)
        patch.setattr(point_state, "write_state", full)
        patch.setattr(Sweep, "update", full_too)
        failures = run_packs(sweep, points, Limits())
    assert list(failures) == ["k4"]
    assert [point_state.is_done(point.folder) for point in points] == [True, False, True]
    assert point_state.read_state(points[1].folder).state == "interrupted"
    assert run_packs(sweep, points, Limits()) == {}


@pytest.fixture
def small_disk(tmp_path):
    """A disk for the sweep `small`, of half a MiB."""
    folder = tmp_path / "outputs" / "small"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(tmp_path, tiny, small_disk):
    done = launch("-m", *tiny, "k=3,4", "dict_size=512", "name=small", cwd=tmp_path)
    assert done.returncode == 1
    assert "the disk is full (" in done.stdout
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
