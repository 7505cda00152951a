"""sweep.json: which states are recorded, and that an older look does not overwrite a newer state."""

import pytest

from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import DONE, FAILED, RUNNING, State
from sae_sweeps.sweep.sweep_state import read_states
from tests.conftest import composed


@pytest.fixture
def sweep(tmp_path):
    """A sweep of the points a and b, both waiting."""
    sweep = Sweep(tmp_path / "sweep")
    sweep.add({name: composed(f"seed={seed}") for seed, name in enumerate("ab")})
    return sweep


def states(sweep: Sweep) -> dict[str, str]:
    return {name: point["state"] for name, point in sweep.read()["points"].items()}


def test_states_that_differ_from_the_recorded_ones_are_recorded(sweep):
    sweep.record_states({"a": State(FAILED, "it broke"), "b": State("waiting")})
    assert states(sweep) == {"a": FAILED, "b": "waiting"}
    assert sweep.read()["points"]["a"]["reason"] == "it broke"


def test_unchanged_states_write_nothing(sweep):
    file = sweep.folder / "sweep.json"
    before = file.stat().st_mtime_ns
    found = read_states(sweep)
    sweep.record_states(found.points, found.content)
    assert file.stat().st_mtime_ns == before


def test_recording_an_older_look_keeps_a_newer_state(sweep):
    sweep.set_state("a", RUNNING)
    content = sweep.read()
    sweep.set_state("a", DONE)  # by another process, since the look
    sweep.record_states({"a": State(RUNNING), "b": State(FAILED, "it broke")}, content)
    assert states(sweep) == {"a": DONE, "b": FAILED}


def test_a_look_reads_sweep_json_once(sweep, monkeypatch):
    reads = []
    read = Sweep.read
    monkeypatch.setattr(Sweep, "read", lambda self: reads.append(self) or read(self))
    found = read_states(sweep)
    sweep.record_states(found.points, found.content)
    assert len(reads) == 1
