"""The submission of points as job arrays: what is submitted, what is skipped, and what a refusal leaves behind."""

import json
from dataclasses import replace

import pytest

from sae_sweeps.config import from_json
from sae_sweeps.config.halving import HalvingConfig
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.launchers.slurm.submission import submit
from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.halving import write_value
from sae_sweeps.sweep.point_state import PRUNED, write_state
from sae_sweeps.sweep.slurm_queue import Job
from tests.commands import DONE_RESULTS
from tests.conftest import composed


@pytest.fixture
def sweep(tmp_path, slurm) -> Sweep:
    slurm.submits()
    slurm.queues()
    return Sweep(tmp_path / "outputs" / "my sweep")


def collect_points(sweep: Sweep, *words: str) -> list[Point]:
    """Points that are listed in sweep.json, one per word of the command line."""
    configs = {word.replace("=", ""): composed(word) for word in words}
    sweep.add(configs)
    return [Point(config, sweep.folder.absolute() / name) for name, config in configs.items()]


def finish(point: Point) -> None:
    point.folder.mkdir(parents=True, exist_ok=True)
    (point.folder / "results.json").write_text(DONE_RESULTS)


def submissions(sweep: Sweep) -> list[dict]:
    """The submissions in sweep.json, each with its submission.json and its batch script."""
    found = []
    for noted in sweep.read()["jobs"]:
        folder = sweep.folder / "slurm" / noted["name"]
        script = (folder / f"{noted['id']}_submission.sh").read_text()
        found.append({**noted, **json.loads((folder / "submission.json").read_text()), "script": script})
    return found


def queued(sweep: Sweep, states: str = "PENDING") -> list[Job]:
    """All submissions of the sweep, as jobs in the queue."""
    jobs = sweep.read()["jobs"]
    return [
        Job(f"{job['id']}_{index}", job["name"], states, 0, None) for job in jobs for index in range(len(job["packs"]))
    ]


WORDS = ("k=3", "k=4", "k=5", "k=6", "k=7")


def test_each_pack_becomes_a_task_of_one_array(sweep, slurm):
    done = submit(sweep, collect_points(sweep, *WORDS), [], Settings(max_points=2, max_memory=3.5))
    assert (done.jobs, done.packs, done.follow_ups) == (["101"], [2, 2, 1], {})
    (array,) = submissions(sweep)
    assert [list(pack) for pack in array["packs"]] == [["k3", "k4"], ["k5", "k6"], ["k7"]]
    assert (array["task"], array["max_memory"], array["sweep"]) == ("points", 3.5, str(sweep.folder))
    assert "#SBATCH --array=0-2%3" in array["script"].splitlines()
    assert f"#SBATCH --job-name={array['name']}" in array["script"].splitlines()
    assert array["name"].startswith("my-sweep.")
    known = sweep.read()["points"]
    assert {name: (point["state"], point["job"]) for name, point in known.items()} == {
        "k3": ("queued", "101_0"),
        "k4": ("queued", "101_0"),
        "k5": ("queued", "101_1"),
        "k6": ("queued", "101_1"),
        "k7": ("queued", "101_2"),
    }
    assert done.lines() == ["submitted 5 points in 3 packs of 2 + 2 + 1: job 101, one array task per pack"]


def test_submission_json_has_the_configurations_that_were_composed(sweep):
    words = ("sae=topk", "sae=jumprelu", "dataset=text", "model=gpt2-small", "training=paper")
    points = collect_points(sweep, *words)
    submit(sweep, points, [], Settings())
    (array,) = submissions(sweep)
    read = {name: from_json(config) for pack in array["packs"] for name, config in pack.items()}
    assert read == {point.name: point.config for point in points}


def test_done_and_live_points_are_skipped_and_the_rest_is_submitted(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    finish(points[1])
    assert submit(sweep, points[:3], [], Settings(max_points=1)).packs == [1, 1]
    running, pending = queued(sweep, "RUNNING")[0], queued(sweep)[1]
    slurm.queues(running, pending)
    again = submit(sweep, points, [], Settings())
    assert (again.jobs, again.packs, again.done, again.under_way) == (["102"], [2], 1, 2)
    assert [list(pack) for pack in submissions(sweep)[1]["packs"]] == [["k6", "k7"]]
    assert again.lines()[0] == "skipped points: 1 done, 2 queued or running"


def test_pruned_points_are_submitted_only_if_they_continue_after_all(sweep):
    rates = [f"training.lr={rate}" for rate in (1e-3, 2e-3, 3e-3)]
    points = [
        Point(replace(point.config, halving=HalvingConfig(enabled=True)), point.folder)
        for point in collect_points(sweep, *rates)
    ]
    for point, value in zip(points, (0.5, 0.4, 0.6), strict=True):
        write_value(point, 65536, value)
    write_state(points[2].folder, PRUNED, "place 3 of 3")
    again = submit(sweep, points, [], Settings())
    assert [list(pack) for pack in submissions(sweep)[0]["packs"]] == [[point.name for point in points[:2]]]
    assert again.lines()[0] == "skipped points: 1 pruned"
    read = {name: from_json(config) for name, config in submissions(sweep)[0]["packs"][0].items()}
    assert all(config.halving.enabled for config in read.values())
    write_value(points[0], 65536, 0.7)
    assert submit(sweep, points[2:], [], Settings()).packs == [1]


def test_nothing_is_submitted_if_all_points_are_queued(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    submit(sweep, points, [], Settings())
    slurm.queues(*queued(sweep))
    before = sweep.read()["jobs"]
    again = submit(sweep, points, [], Settings())
    assert (again.jobs, again.packs, again.under_way) == ([], [], 5)
    assert again.lines() == ["skipped points: 5 queued or running", "nothing to submit"]
    assert sweep.read()["jobs"] == before
    assert len(slurm.calls("sbatch")) == 1


def test_points_of_a_cancelled_job_are_submitted_again(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    submit(sweep, points, [], Settings(max_points=3))
    slurm.queues(*queued(sweep, "CANCELLED")[:1], *queued(sweep)[1:])
    again = submit(sweep, points, [], Settings())
    assert (again.packs, again.under_way) == ([3], 2)


def test_packs_above_the_maximum_array_size_become_several_arrays(sweep, slurm):
    slurm.submits(largest=2)
    done = submit(sweep, collect_points(sweep, *WORDS), ["report"], Settings(max_points=1))
    assert done.jobs == ["101", "102", "103"]
    assert [len(array["packs"]) for array in submissions(sweep)] == [2, 2, 1, 1]
    assert "--dependency=afterany:101:102:103" in submissions(sweep)[-1]["script"]
    known = sweep.read()["points"]
    assert [point["job"] for point in known.values()] == ["101_0", "101_1", "102_0", "102_1", "103_0"]


def test_a_report_waits_for_new_and_live_jobs_and_gets_no_gpu(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    submit(sweep, points[:2], [], Settings(max_points=1))
    slurm.queues(*queued(sweep, "RUNNING")[1:])
    finish(points[0])
    done = submit(sweep, points, ["report", "report"], Settings(time="4:00:00", memory="64G", partition="gpu"))
    assert done.follow_ups == {"report": "103"}
    report = submissions(sweep)[-1]
    assert (report["task"], report["packs"]) == ("report", [{}])
    lines = report["script"].splitlines()
    assert "#SBATCH --dependency=afterany:101:102" in lines
    assert "#SBATCH --partition=gpu" in lines
    assert not [line for line in lines if line.startswith("#SBATCH --gres")]
    assert done.lines()[-1] == "submitted follow-up task report: job 103"


def test_a_report_on_a_done_sweep_waits_for_no_job(sweep):
    (point,) = collect_points(sweep, "k=3")
    finish(point)
    assert submit(sweep, [point], ["report"], Settings()).follow_ups == {"report": "101"}
    assert "dependency" not in submissions(sweep)[0]["script"]


def test_a_queued_report_is_replaced_only_if_there_are_new_jobs(sweep, slurm):
    slurm.says("scancel", "")
    points = collect_points(sweep, *WORDS)
    assert submit(sweep, points[:2], ["report"], Settings()).follow_ups == {"report": "102"}
    slurm.queues(*queued(sweep))
    unchanged = submit(sweep, points[:2], ["report"], Settings())
    assert (unchanged.follow_ups, slurm.calls("scancel")) == ({}, [])
    assert submit(sweep, points, ["report"], Settings()).follow_ups == {"report": "104"}
    assert slurm.calls("scancel") == ["102_0"]
    assert "--dependency=afterany:101:103" in submissions(sweep)[-1]["script"]


def test_a_refusal_is_an_error_and_leaves_sweep_json_unchanged(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    before = sweep.read()
    slurm.does("sbatch", "echo 'sbatch: error: invalid account' >&2; exit 1")
    with pytest.raises(SlurmError, match="sbatch: error: invalid account"):
        submit(sweep, points, ["report"], Settings())
    assert sweep.read() == before


def test_arrays_accepted_before_a_refusal_stay_submitted(sweep, slurm):
    slurm.submits(largest=2)
    slurm.does("sbatch", '[ $(wc -l < "$0.calls") -lt 2 ] || exit 1\necho "Submitted batch job 101"')
    with pytest.raises(SlurmError):
        submit(sweep, collect_points(sweep, *WORDS), [], Settings(max_points=1))
    (array,) = submissions(sweep)
    assert array["id"] == "101"
    assert [point["state"] for point in sweep.read()["points"].values()] == ["queued"] * 2 + ["waiting"] * 3


def test_nothing_is_submitted_while_squeue_does_not_answer(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    submit(sweep, points, [], Settings())
    slurm.does("squeue", "echo 'squeue: error: timed out' >&2; exit 1")
    with pytest.raises(SlurmError, match="timed out"):
        submit(sweep, points, [], Settings())
    assert len(slurm.calls("sbatch")) == 1


def test_a_job_that_slurm_accepted_without_confirmation_is_found_by_its_name(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    name = 'sed -n "s/^#SBATCH --job-name=//p" "$1"'  # and squeue lists it, under the id 55
    slurm.does(
        "sbatch",
        f"""printf '%-40s%-100s%-24s%-10s%-60s\\n' 55_0 "$({name})" PENDING 0 None > "$(dirname "$0")/squeue.says"
        echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1""",
    )
    assert submit(sweep, points, [], Settings()).jobs == ["55"]
    (job,) = sweep.read()["jobs"]
    assert (job["id"], len(job["packs"][0])) == ("55", 5)
    assert sweep.read()["points"]["k3"]["job"] == "55_0"


def test_one_report_waits_for_the_jobs_of_all_commands(sweep, slurm):
    points = collect_points(sweep, *WORDS)
    first = submit(sweep, points[:2], ["report"], Settings())
    slurm.queues(*queued(sweep))
    slurm.says("scancel", "")
    assert submit(sweep, points[:2], ["report"], Settings()).follow_ups == {}  # it waits for all jobs already
    submit(sweep, points[2:], [], Settings())
    slurm.queues(*queued(sweep))
    second = submit(sweep, points, ["report"], Settings())
    assert list(second.follow_ups) == ["report"]
    assert slurm.calls("scancel") == [f"{first.follow_ups['report']}_0"]
    assert "--dependency=afterany:101:103" in submissions(sweep)[-1]["script"]
