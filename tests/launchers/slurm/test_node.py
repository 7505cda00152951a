"""What a task of an array does: its own pack, its exit code, being told to stop, and giving up."""

import json
import os
import signal
from dataclasses import asdict

import pytest

from sae_sweeps.launchers.slurm import node
from sae_sweeps.runtime import signals
from sae_sweeps.sweep import Sweep, point_state, slurm_queue
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import follow_ups, run_packs
from tests.conftest import composed

CONFIGS = {f"k{k}": composed(f"k={k}") for k in (3, 4, 5)}


@pytest.fixture
def task(tmp_path, monkeypatch):
    """The folder of a submission of two packs, of which this process is to do the second, as task 7_1."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    signals.reset()
    monkeypatch.chdir(tmp_path)
    Sweep(tmp_path / "sweep").add(CONFIGS)
    for name, value in {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1", "JOB_ID": "9", "RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    yield submitted(tmp_path, "points", [["k3"], ["k4", "k5"]])
    signals.reset()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def submitted(tmp_path, task: str, packs: list[list[str]], configs=()):
    folder = tmp_path / "sweep" / "slurm" / f"s.{task}"
    folder.mkdir(parents=True)
    content = {
        "task": task,
        "packs": [{name: asdict(CONFIGS[name]) for name in pack} for pack in packs],
        "configs": [asdict(config) for config in configs],
        "max_memory": 2,
        "directory": str(tmp_path),
        "sweep": str(tmp_path / "sweep"),
    }
    (folder / "submission.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def packs_run(monkeypatch) -> list[tuple]:
    """The packs that were run, with their limits; none of their points fails."""
    found: list[tuple] = []
    monkeypatch.setattr(run_packs, "run_packs", lambda sweep, points, limits: found.append((points, limits)) or {})
    return found


def test_a_task_runs_its_own_pack_where_the_command_was_given(task, packs_run, monkeypatch):
    here = os.getcwd()
    os.chdir("/")
    assert node.main(task) == 0
    assert os.getcwd() == here
    ((points, limits),) = packs_run
    assert {point.name: point.config for point in points} == {name: CONFIGS[name] for name in ("k4", "k5")}
    assert [point.folder for point in points] == [task.parent.parent / name for name in ("k4", "k5")]
    assert limits == Limits(None, 2 * 2**30, node.PATIENCE)


def test_a_point_that_failed_is_told_by_the_exit_code(task, monkeypatch):
    monkeypatch.setattr(run_packs, "run_packs", lambda *_: {"k4": "it broke"})
    assert node.main(task) == 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("refusal", [None, "the job was cancelled"])
def test_a_task_told_to_stop_has_itself_requeued(task, monkeypatch, caplog, number, refusal):
    asked = []

    def told_to_stop(sweep, points, limits):
        os.kill(os.getpid(), number)
        signals.raise_if_stopped()

    monkeypatch.setattr(run_packs, "run_packs", told_to_stop)
    monkeypatch.setattr(slurm_queue, "requeue", lambda id: asked.append(id) or refusal)
    assert node.main(task) == node.STOPPED == 75
    assert asked == ["7_1"]
    assert f"{number.name}: stopped; {'not requeued here: ' if refusal else ''}{refusal or 'requeued'}" in caplog.text


def progress(task, step: int) -> None:
    (task.parent.parent / "k4" / "checkpoint" / f"step-{step:08d}").mkdir(parents=True)


def test_beginnings_from_which_nothing_comes_end_and_are_told(task, packs_run):
    (task.parent.parent / "k5").mkdir()
    (task.parent.parent / "k5" / "results.json").write_text("{}")
    assert [node.main(task) for _ in range(3)] == [0, 0, 0]
    assert node.main(task) == 1
    assert len(packs_run) == 3
    state = point_state.read_state(task.parent.parent / "k4")
    assert state.state == "failed"
    assert state.reason.startswith("the job began again and again and saved nothing new")
    assert point_state.read_state(task.parent.parent / "k5").state == "done"


def test_beginnings_from_which_something_comes_go_on_for_ever(task, packs_run):
    for step in range(5):
        assert [node.main(task) for _ in range(3)] == [0, 0, 0]
        progress(task, step + 1)
    assert len(packs_run) == 15


def test_being_stopped_counts_for_less_than_being_killed(task, monkeypatch):
    def told_to_stop(sweep, points, limits):
        raise signals.Stopped("SIGUSR1")

    monkeypatch.setattr(run_packs, "run_packs", told_to_stop)
    monkeypatch.setattr(slurm_queue, "requeue", lambda id: None)
    assert [node.main(task) for _ in range(10)] == [node.STOPPED] * 10
    assert node.main(task) == 1
    progress(task, 1)
    assert node.main(task) == node.STOPPED


def test_the_other_tasks_of_the_array_are_counted_for_themselves(task, packs_run, monkeypatch):
    for index in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
        assert [node.main(task) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("outcome", "code"), [(True, 0), (False, 1)])
@pytest.mark.parametrize(("ks", "index"), [([3], 0), ([3, 4, 5], 1)])
def test_a_task_for_the_sweep_is_run_with_its_own_configuration(task, tmp_path, monkeypatch, outcome, code, ks, index):
    ran = []

    def follow_up(name, sweep, config, label):
        ran.append((name, sweep.folder, config, label))
        return outcome

    monkeypatch.setattr(follow_ups, "follow_up", follow_up)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
    configs = [CONFIGS[f"k{k}"] for k in ks]
    assert node.main(submitted(tmp_path, "stitch", [[] for _ in ks], configs)) == code
    assert ran == [("stitch", tmp_path / "sweep", configs[index], "stitch")]
