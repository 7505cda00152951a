"""Sweeps on a real Slurm: a private cluster of two nodes, whose jobs are signalled, requeued, cancelled and killed."""

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from sae_sweeps.runtime.errors import RefusedError
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, State
from sae_sweeps.sweep.sweep_state import SweepStates, read_states
from tests.commands import weights
from tests.conftest import launch, start
from tests.launchers.hydra_doubles import BATCHES, CALLBACK, RESULTS, SEEN, multirun, read
from tests.slurm_cluster.cluster import Cluster, missing

pytestmark = [pytest.mark.integration, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

SLURM = "hydra/launcher=slurm"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two nodes, which commands started by this process use."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, requeue_seconds=5) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        yield cluster


def wait_for(holds, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def is_over(seen: SweepStates) -> bool:
    return not {state.state for state in [*seen.points.values(), *seen.follow_ups.values()]} & {QUEUED, RUNNING}


def wait_for_end(sweep: Path) -> dict[str, State]:
    """Wait until nothing is queued or running. Returns the states of the points."""
    wait_for(lambda: is_over(read_states(Sweep(sweep))), "the jobs to end", 240)
    return read_states(Sweep(sweep)).points


def step(sweep: Path, task: int) -> int:
    """The lowest step of the points of an array task, 0 if it is not running."""
    states = [state for state in read_states(Sweep(sweep)).points.values() if (state.job or "").endswith(f"_{task}")]
    running = [state for state in states if state.state == RUNNING and state.reason not in ("starting", "stopping")]
    return min((state.step for state in running), default=0)


def process_of(sweep: Path, task: int) -> psutil.Process:
    """The process that trains the points of an array task."""
    pack = json.loads((sweep / "sweep.json").read_text())["jobs"][0]["packs"][task]
    return psutil.Process(json.loads((sweep / pack[0] / "state.json").read_text())["owner"]["pid"])


def test_a_sweep_on_two_nodes_gives_the_same_weights_as_a_local_one(cluster, tmp_path, tiny):
    words = ["-m", *tiny, "sae=batchtopk,topk", "k=3,4,5", "seed=0,1", "training.tokens=12000"]
    assert launch(*words, "name=here", cwd=tmp_path).returncode == 0
    submitting = start(*words, "name=there", SLURM, "hydra.launcher.max_points=3", "then=[report]", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "there"
    wait_for(lambda: Sweep(sweep).exists() and len(Sweep(sweep).read()["jobs"]) == 2, "the submission")
    assert submitting.wait(timeout=60) == 0
    status = launch("task=status", "name=there", cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert "12 points" in status.stdout
    assert "then report: queued" in status.stdout
    again = launch(*words, "name=there", SLURM, "hydra.launcher.max_points=3", cwd=tmp_path)
    assert "skipped points: " in again.stdout
    assert "nothing to submit" in again.stdout
    assert {state.state for state in wait_for_end(sweep).values()} == {DONE}
    assert {state.job.partition("_")[2] for state in read_states(Sweep(sweep)).points.values()} == {"0", "1", "2", "3"}
    (job,) = {state.job.partition("_")[0] for state in read_states(Sweep(sweep)).points.values()}
    tasks = [task for task in cluster.queue() if task["JobArrayID"].startswith(f"{job}_")]
    assert {task["NodeList"] for task in tasks} == {"n1", "n2"}
    assert weights(sweep) == weights(tmp_path / "outputs" / "here")
    assert read_states(Sweep(sweep)).follow_ups["report"].state == DONE
    assert "<title>SAE sweep there: " in (sweep / "report.html").read_text()
    with open(sweep / "results.csv") as file:
        assert len(list(csv.DictReader(file))) == 12
    results = json.loads(next(sweep.glob("*/results.json")).read_text())
    assert results["provenance"]["commit"] is not None
    assert "nothing to submit" in launch(*words, "name=there", SLURM, cwd=tmp_path).stdout


@pytest.mark.long
def test_a_sweep_whose_jobs_are_signalled_killed_and_requeued_gives_the_same_weights(cluster, tmp_path, tiny):
    words = ["-m", *tiny, "sae=batchtopk,topk", "k=3,4", "training.tokens=240000", "training.checkpoint_every=100"]
    words.append("tracking=offline")
    assert launch(*words, "name=here", cwd=tmp_path, timeout=480).returncode == 0
    done = launch(*words, "name=there", SLURM, "hydra.launcher.max_points=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "there"
    job = json.loads((sweep / "sweep.json").read_text())["jobs"][0]["id"]

    wait_for(lambda: step(sweep, 0) >= 200, "the first pack to train")
    wait_for(lambda: step(sweep, 1) >= 200, "the second pack to train")
    ids = {point.name: json.loads((point / "wandb_run.json").read_text())["id"] for point in sweep.glob("*-48-*")}
    assert len(ids) == 4
    cluster.run("scancel", "--signal=USR1", f"{job}_0")
    cluster.run("scontrol", "requeue", f"{job}_1")
    wait_for(lambda: step(sweep, 0) >= 1000, "the first pack to resume")
    process_of(sweep, 0).kill()
    wait_for(lambda: step(sweep, 1) >= 1000, "the second pack to resume")
    node = next(task["NodeList"] for task in cluster.queue() if task["JobArrayID"] == f"{job}_1")
    cluster.kill_slurmd(node)
    cluster.set_down(node)
    wait_for(lambda: all(s.requeued >= 2 for s in states_in_task(sweep, 1)), "Slurm to take the job from its node")
    cluster.start_slurmd(node)

    assert {state.state for state in wait_for_end(sweep).values()} == {DONE}
    assert weights(sweep) == weights(tmp_path / "outputs" / "here")
    wait_for((sweep / "report.html").exists, "the report, of the last job")
    signalled, requeued = (next(sweep.glob(f"slurm/*/{job}_{task}_0_log.out")).read_text() for task in (0, 1))
    assert stopped_and_resumed(signalled, "SIGUSR1")
    # Slurm sends TERM to the process and to the script, which forwards it as USR1: either may arrive first
    assert stopped_and_resumed(requeued, "SIGTERM|SIGUSR1")
    assert "killed by signal 9; beginning again" in signalled
    for point in sweep.glob("*-48-*"):
        assert len(list(point.glob("wandb/offline-run-*"))) == 1
        assert ids[point.name] == json.loads((point / "wandb_run.json").read_text())["id"]


def stopped_and_resumed(log: str, signals: str) -> bool:
    """Whether the first run of a job saved both points at a signal, and the second resumed at the same steps."""
    first, second = re.split(r"requeued \d+ times", log)[1:3]
    stopped = dict(re.findall(rf"(\S+): (?:{signals}): stopped at step (\d+) and saved a checkpoint", first))
    return len(stopped) == 2 and stopped == dict(re.findall(r"(\S+): resuming at step (\d+) of", second))


def states_in_task(sweep: Path, task: int) -> list[State]:
    """The states of the points of an array task."""
    return [state for state in read_states(Sweep(sweep)).points.values() if (state.job or "").endswith(f"_{task}")]


def test_a_failed_point_is_named_and_only_it_is_submitted_again(cluster, tmp_path, tiny):
    words = [*tiny, "name=mixed", SLURM, "hydra.launcher.max_points=2"]
    sweep = tmp_path / "outputs" / "mixed"
    launch("-m", *words, "k=3,4,5,6", "then=[report]", "hydra.launcher.setup=[sleep 8]", cwd=tmp_path)
    failing = next(sweep.glob("*-k4-*"))
    (failing / "metrics.jsonl").mkdir()  # a folder in the place of a file
    states = wait_for_end(sweep)
    assert {name: state.state for name, state in states.items() if state.state != DONE} == {failing.name: FAILED}
    (report,) = (log for log in sweep.glob("slurm/*/*_0_log.out") if "results.csv" in log.read_text())
    reason = f"{failing / 'metrics.jsonl'} is a folder, but a file must be written there"
    assert f"FAILED {failing.name}: {reason}" in " ".join(report.read_text().split())
    status = launch("task=status", "name=mixed", cwd=tmp_path)
    assert f"FAILED {failing.name}: {reason}" in " ".join(status.stdout.split())
    (failing / "metrics.jsonl").rmdir()
    again = launch("-m", *words, "k=3,4,5,6", "then=[report]", cwd=tmp_path)
    assert "skipped points: 3 done" in again.stdout
    assert "submitted 1 point in 1 pack of 1" in again.stdout
    assert {state.state for state in wait_for_end(sweep).values()} == {DONE}


def test_a_cancelled_job_runs_again_only_when_the_command_is_repeated(cluster, tmp_path, tiny):
    words = ["-m", *tiny, "k=3,4", "training.tokens=200000", "name=cancelled", SLURM]
    launch(*words, cwd=tmp_path)
    sweep = tmp_path / "outputs" / "cancelled"
    wait_for(lambda: step(sweep, 0) >= 100, "the pack to train")
    cluster.run("scancel", json.loads((sweep / "sweep.json").read_text())["jobs"][0]["id"])
    states = wait_for_end(sweep)
    assert {state.state for state in states.values()} == {INTERRUPTED}
    assert all("was cancelled" in (state.reason or "") for state in states.values())
    assert "submitted 2 points" in launch(*words, cwd=tmp_path).stdout
    assert {state.state for state in wait_for_end(sweep).values()} == {DONE}
    assert "resuming at step" in next(sweep.glob("*/launch.log")).read_text()


def test_a_waiting_command_follows_the_jobs_and_leaves_them_running_at_ctrl_c(cluster, tmp_path, tiny):
    words = ["-m", *tiny, "k=3,4", SLURM, "hydra.launcher.wait=true"]
    followed = launch(*words, "name=followed", cwd=tmp_path)
    assert followed.returncode == 0, followed.stderr
    assert "2 points, 2 done" in followed.stdout
    process = start(*words, "name=left", "hydra.launcher.setup=[sleep 3]", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "left"
    wait_for(lambda: Sweep(sweep).exists() and read_states(Sweep(sweep)).points != {}, "the submission")
    wait_for(lambda: {state.state for state in read_states(Sweep(sweep)).points.values()} <= {QUEUED, RUNNING}, "jobs")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert {state.state for state in wait_for_end(sweep).values()} == {DONE}


def test_a_sweeper_reads_the_results_of_jobs_and_follow_ups_are_submitted_once(cluster, tmp_path, tiny):
    words = [*tiny, BATCHES, "hydra.sweeper.max_batch_size=2", "k=3,4,5", "objective=nmse", "name=tuned", SLURM]
    with pytest.raises(RefusedError, match=r"hydra\.launcher\.wait=false: .* Fix: hydra\.launcher\.wait=true"):
        multirun(*words)
    assert not (tmp_path / "outputs").exists()
    multirun(*words, CALLBACK, "hydra.launcher.wait=true", "then=[report]")
    results = [result for batch in read(tmp_path, RESULTS) for result in batch]
    assert [(result["k"], result["status"]) for result in results] == [(k, "COMPLETED") for k in (3, 4, 5)]
    sweep = tmp_path / "outputs" / "tuned"
    for result in results:
        stored = json.loads((sweep / result["folder"] / "results.json").read_text())
        assert result["value"] == stored["metrics"]["nmse"]
    assert [job["task"] for job in Sweep(sweep).read()["jobs"]] == ["points", "points", "report"]
    assert read_states(Sweep(sweep)).follow_ups["report"].state == DONE
    events = [event[:2] for event in read(tmp_path, SEEN)]
    assert events == [["start", 0], ["start", 1], ["end", 0], ["end", 1], ["start", 2], ["end", 2], ["over"]]
