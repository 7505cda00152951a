"""Points that never finished are listed, then removed; all others stay."""

import pytest
from filelock import FileLock

from sae_sweeps.config.validation import find_problems
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.sweep_state import read_states
from sae_sweeps.tasks import remove
from tests.conftest import composed
from tests.report.made import put, some_metrics

STATES = {"k2": "done", "k3": "failed", "k4": "interrupted", "k5": "waiting", "k6": "failed"}
REMOVE = "remove.dry_run=false"


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    """A sweep with points in all states that last."""
    made = Sweep(tmp_path / "s")
    for name, state in STATES.items():
        kept = state if state in ("failed", "interrupted") else None
        metrics = some_metrics(0) if state == "done" else None
        put(made, name, f"k={name[1:]}", state=kept, reason="the loss is nan" if kept else None, metrics=metrics)
    return made


def left(sweep: Sweep) -> list[str]:
    folders = sorted(entry.name for entry in sweep.folder.iterdir() if entry.is_dir())
    assert folders == sorted(read_states(sweep).points)
    return folders


def test_a_dry_run_lists_failed_points_and_the_command(sweep, capsys):
    assert remove.run(sweep, composed("name=s")) == []
    assert capsys.readouterr().out.splitlines() == [
        "2 points of sweep s would be removed:",
        "  k3: failed: the loss is nan",
        "  k6: failed: the loss is nan",
        f"to remove them, with their checkpoints and logs: python launch.py task=remove name=s "
        f"output_root={sweep.folder.parent} remove.dry_run=false",
    ]
    assert left(sweep) == sorted(STATES)


def test_failed_points_are_removed(sweep, capsys):
    assert remove.run(sweep, composed("name=s", REMOVE)) == []
    assert capsys.readouterr().out.splitlines()[-1] == "removed 2 points"
    assert left(sweep) == ["k2", "k4", "k5"]
    assert remove.run(sweep, composed("name=s", REMOVE)) == []
    assert capsys.readouterr().out == "sweep s has no points that are failed\n"


def test_other_unfinished_points_are_removed_if_they_are_named(sweep, capsys):
    words = ["name=s", "remove.states=[interrupted,waiting]"]
    remove.run(sweep, composed(*words))
    assert capsys.readouterr().out.endswith("remove.dry_run=false 'remove.states=[interrupted,waiting]'\n")
    assert remove.run(sweep, composed(*words, REMOVE)) == []
    assert left(sweep) == ["k2", "k3", "k6"]


def test_a_point_that_another_process_holds_or_has_finished_and_a_link_stay(sweep, tmp_path, monkeypatch):
    seen = read_states(sweep)
    monkeypatch.setattr(remove, "read_states", lambda sweep: seen)
    put(Sweep(tmp_path / "other"), "k6", "k=6", metrics=some_metrics(0))
    (tmp_path / "other" / "k6" / "results.json").rename(sweep.folder / "k6" / "results.json")
    (sweep.folder / "k5").rename(tmp_path / "moved")
    (sweep.folder / "k5").symlink_to(tmp_path / "moved")
    words = ["name=s", REMOVE, "remove.states=[failed,waiting]"]
    with FileLock(sweep.folder / "k3" / point_state.LOCK):
        failures = remove.run(sweep, composed(*words))
    assert [failure.partition(",")[0] for failure in failures] == [
        "k3: another process trains the point now",
        f"k5: {sweep.folder / 'k5'} is a link",
        "k6: the point is done now",
    ]
    assert left(sweep) == sorted(STATES)


@pytest.mark.parametrize("states", ["[done]", "[]", "[failed,running]"])
def test_only_states_of_unfinished_points_are_taken(states):
    (problem,) = find_problems(composed(f"remove.states={states}"))
    assert problem.setting == "remove.states"
