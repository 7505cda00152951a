"""An array task: it runs its own pack, returns an exit code, requeues itself at a signal, and gives up in the end."""

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
from tests.commands import DONE_RESULTS
from tests.conftest import composed

CONFIGS = {f"k{k}": composed(f"k={k}") for k in (3, 4, 5)}


@pytest.fixture
def task(tmp_path, monkeypatch):
    """The folder of a submission of two packs. This process is array task 7_1 and runs the second pack."""
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
    """A submission's folder with its submission.json."""
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
    """The packs that were run, with their limits. No point of them fails."""
    found: list[tuple] = []
    monkeypatch.setattr(run_packs, "run_packs", lambda sweep, points, limits: found.append((points, limits)) or {})
    return found


def test_an_array_task_runs_its_own_pack_in_the_directory_of_the_command(task, packs_run, monkeypatch):
    here = os.getcwd()
    os.chdir("/")
    assert node.main(task) == 0
    assert os.getcwd() == here
    ((points, limits),) = packs_run
    assert {point.name: point.config for point in points} == {name: CONFIGS[name] for name in ("k4", "k5")}
    assert [point.folder for point in points] == [task.parent.parent / name for name in ("k4", "k5")]
    assert limits == Limits(None, 2 * 2**30, node.LOCK_PATIENCE)


def test_a_failed_point_makes_the_exit_code_1(task, monkeypatch):
    monkeypatch.setattr(run_packs, "run_packs", lambda *_: {"k4": "it broke"})
    assert node.main(task) == 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("refusal", [None, "the job was cancelled"])
def test_an_array_task_requeues_itself_at_a_signal(task, monkeypatch, caplog, number, refusal):
    requeued = []

    def run_until_signal(sweep, points, limits):
        os.kill(os.getpid(), number)
        signals.raise_if_stopped()

    monkeypatch.setattr(run_packs, "run_packs", run_until_signal)
    monkeypatch.setattr(slurm_queue, "requeue", lambda id: requeued.append(id) or refusal)
    assert node.main(task) == node.EXIT_PREEMPTED == 75
    assert requeued == ["7_1"]
    result = f"did not requeue the job: {refusal}" if refusal else "requeued the job"
    assert f"stopped because of the signal {number.name}, and {result}" in caplog.text


def save_checkpoint(task, step: int) -> None:
    (task.parent.parent / "k4" / "checkpoint" / f"step-{step:08d}").mkdir(parents=True)


def test_a_job_gives_up_at_the_fourth_start_after_three_kills_without_progress(task, packs_run):
    (task.parent.parent / "k5").mkdir(exist_ok=True)
    (task.parent.parent / "k5" / "results.json").write_text(DONE_RESULTS)
    assert [node.main(task) for _ in range(3)] == [0, 0, 0]
    assert node.main(task) == 1
    assert len(packs_run) == 3
    state = point_state.read_state(task.parent.parent / "k4")
    assert state.state == "failed"
    assert state.reason.startswith(
        "gave up, because the job was killed or preempted too many times without a new checkpoint."
    )
    assert point_state.read_state(task.parent.parent / "k5").state == "done"


def test_a_job_that_makes_progress_may_be_killed_any_number_of_times(task, packs_run):
    for step in range(5):
        assert [node.main(task) for _ in range(3)] == [0, 0, 0]
        save_checkpoint(task, step + 1)
    assert len(packs_run) == 15


def test_a_job_gives_up_after_ten_preemptions_without_progress(task, monkeypatch):
    def run_until_preempted(sweep, points, limits):
        raise signals.Stopped("SIGUSR1")

    monkeypatch.setattr(run_packs, "run_packs", run_until_preempted)
    monkeypatch.setattr(slurm_queue, "requeue", lambda id: None)
    assert [node.main(task) for _ in range(10)] == [node.EXIT_PREEMPTED] * 10
    assert node.main(task) == 1
    save_checkpoint(task, 1)
    assert node.main(task) == node.EXIT_PREEMPTED


def test_every_task_of_the_array_has_its_own_count_of_starts(task, packs_run, monkeypatch):
    for index in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
        assert [node.main(task) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("outcome", "code"), [(True, 0), (False, 1)])
@pytest.mark.parametrize(("ks", "index"), [([3], 0), ([3, 4, 5], 1)])
def test_an_array_task_on_the_sweep_runs_with_its_own_configuration(
    task, tmp_path, monkeypatch, outcome, code, ks, index
):
    ran = []

    def run_follow_up(name, sweep, config, label):
        ran.append((name, sweep.folder, config, label))
        return outcome

    monkeypatch.setattr(follow_ups, "run_follow_up", run_follow_up)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
    configs = [CONFIGS[f"k{k}"] for k in ks]
    assert node.main(submitted(tmp_path, "stitch", [[] for _ in ks], configs)) == code
    assert ran == [("stitch", tmp_path / "sweep", configs[index], "stitch")]
