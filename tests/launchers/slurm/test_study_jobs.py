"""Studies as jobs: they get a GPU, wait for the points or start at once, and are replaced when out of date."""

import json

import pytest

from sae_sweeps.config import from_json
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.launchers.slurm.submission import Submitted, submit, submit_task
from sae_sweeps.report import status
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.sweep_state import read_states
from tests.conftest import composed
from tests.launchers.slurm.test_submission import finish, queued, submissions

THEN = ["stitch", "report"]


@pytest.fixture
def sweep(tmp_path, slurm) -> Sweep:
    slurm.submits()
    slurm.queues()
    slurm.says("scancel", "")
    return Sweep(tmp_path / "outputs" / "mine")


def submitted(sweep: Sweep, *words: str, then: list[str] = THEN, ks: tuple[int, ...] = (3, 4)) -> Submitted:
    """The submission of a command with these words, a sweep over k."""
    configs = {f"k{k}": composed(f"k={k}", *words) for k in ks}
    sweep.add(configs)
    points = [Point(config, sweep.folder.absolute() / name) for name, config in configs.items()]
    return submit(sweep, points, then, Settings(sbatch={"gpu-freq": "low", "nice": 5}))


def lines(sweep: Sweep) -> dict[str, set[str]]:
    """The #SBATCH lines of the latest submission of each task."""
    return {
        one["task"]: {line for line in one["script"].splitlines() if "SBATCH" in line} for one in submissions(sweep)
    }


def mark_done(sweep: Sweep, task: str, job: str) -> None:
    """Record in sweep.json that this job has done the task."""
    outcome = {"state": "done", "reason": None, "job": job}
    sweep.update(lambda known: known["followed"].update({task: outcome}))


def test_studies_wait_for_the_points_with_a_gpu_and_the_report_waits_for_all_without_a_gpu(sweep):
    found = submitted(sweep, then=["stitch", "latents", "report"])
    assert (found.jobs, found.follow_ups) == (["101"], {"stitch": "102", "latents": "103", "report": "104"})
    scripts = lines(sweep)
    gpu = {"#SBATCH --gres=gpu:1", "#SBATCH --gpu-freq=low"}
    for task in ("stitch", "latents"):
        assert gpu | {"#SBATCH --dependency=afterany:101", "#SBATCH --nice=5"} <= scripts[task]
    assert {"#SBATCH --dependency=afterany:101:102:103", "#SBATCH --nice=5"} <= scripts["report"]
    assert not gpu & scripts["report"]
    assert found.lines()[-3:] == [
        "submitted follow-up task stitch: job 102",
        "submitted follow-up task latents: job 103",
        "submitted follow-up task report: job 104",
    ]


def test_follow_up_tasks_read_the_configuration_of_the_command(sweep):
    words = ("stitch.threshold=0.45", "meta.k=2", "device=cpu")
    submitted(sweep, *words)
    for one in submissions(sweep)[1:]:
        (config,) = map(from_json, one["configs"])
        assert config == composed("k=3", *words)
        assert (config.stitch.threshold, one["packs"]) == (0.45, [{}])


def test_the_same_command_again_submits_nothing_while_its_jobs_are_queued(sweep, slurm):
    submitted(sweep, "stitch.threshold=0.5")
    slurm.queues(*queued(sweep))
    again = submitted(sweep, "stitch.threshold=0.5")
    assert (again.jobs, again.follow_ups) == ([], {})
    assert again.lines()[-1] == "nothing to submit"
    assert (len(slurm.calls("sbatch")), slurm.calls("scancel")) == (3, [])


def test_other_settings_replace_a_queued_study_and_the_report_behind_it(sweep, slurm):
    submitted(sweep, "stitch.threshold=0.5")
    slurm.queues(*queued(sweep))
    again = submitted(sweep, "stitch.threshold=0.6")
    assert (again.jobs, again.follow_ups) == ([], {"stitch": "104", "report": "105"})
    assert slurm.calls("scancel") == ["102_0", "103_0"]
    *_, study, report = submissions(sweep)
    assert study["configs"][0]["stitch"]["threshold"] == 0.6
    assert "--dependency=afterany:101\n" in study["script"]
    assert "--dependency=afterany:101:104\n" in report["script"]


def test_a_done_study_is_submitted_again_only_for_other_settings_or_new_points(sweep, slurm):
    submitted(sweep, then=["stitch"])
    finish(Point(composed(), sweep.folder / "k3"))
    finish(Point(composed(), sweep.folder / "k4"))
    mark_done(sweep, "stitch", "102_0")
    assert submitted(sweep, then=["stitch"]).follow_ups == {}
    assert submitted(sweep, "k=4", then=["stitch"]).follow_ups == {}
    assert submitted(sweep, "stitch.tokens=99", then=["stitch"]).follow_ups == {"stitch": "103"}
    assert "dependency" not in submissions(sweep)[-1]["script"]
    mark_done(sweep, "stitch", "103_0")
    found = submitted(sweep, "stitch.tokens=99", then=["stitch"], ks=(3, 4, 5))
    assert (found.jobs, found.follow_ups) == (["104"], {"stitch": "105"})
    assert slurm.calls("scancel") == []


def test_a_report_of_a_later_command_waits_for_the_queued_studies(sweep, slurm):
    submitted(sweep, then=["stitch"])
    slurm.queues(*queued(sweep))
    again = submitted(sweep)
    assert again.follow_ups == {"report": "103"}
    assert "--dependency=afterany:101:102\n" in submissions(sweep)[-1]["script"]
    slurm.queues(*queued(sweep))
    assert submitted(sweep).follow_ups == {}


def test_a_study_without_points_is_one_array_with_a_task_per_configuration(sweep, slurm, capsys):
    configs = [composed("task=meta_sae", f"meta.k={k}") for k in (2, 4)]
    assert submit_task(sweep, "meta_sae", configs, Settings()) == "101"
    (array,) = submissions(sweep)
    name = sweep.read()["jobs"][0]["name"]
    assert {"#SBATCH --array=0-1%2", "#SBATCH --gres=gpu:1"} <= lines(sweep)["meta_sae"]
    assert "dependency" not in array["script"]
    assert list(map(from_json, array["configs"])) == configs
    slurm.queues(*queued(sweep)[:1], *queued(sweep, "RUNNING")[1:])
    seen = read_states(sweep).follow_ups
    assert {label: (state.state, state.job) for label, state in seen.items()} == {
        f"meta_sae 1 of 2 in {name}": ("queued", "101_0"),
        f"meta_sae 2 of 2 in {name}": ("running", "101_1"),
    }
    status.show(sweep)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [
        f"then meta_sae 1 of 2 in {name}: queued (job 101_0)",
        f"then meta_sae 2 of 2 in {name}: running (job 101_1)",
    ]
    assert submit_task(sweep, "meta_sae", configs, Settings()) is None
    assert submit_task(sweep, "meta_sae", [*configs, composed("task=meta_sae", "meta.k=8")], Settings()) == "102"


def test_a_follow_up_study_does_not_replace_a_study_without_points(sweep, slurm):
    submit_task(sweep, "stitch", [composed("task=stitch", "stitch.threshold=0.3")], Settings())
    slurm.queues(*queued(sweep))
    assert submitted(sweep, then=["stitch"]).follow_ups == {"stitch": "103"}
    assert slurm.calls("scancel") == []


def test_a_report_waits_for_studies_that_are_listed_after_it(sweep, slurm):
    assert list(submitted(sweep, then=["report", "stitch", "report"]).follow_ups) == ["stitch", "report"]


def test_a_refused_study_is_not_listed_in_sweep_json(sweep, slurm):
    slurm.does("sbatch", "echo 'sbatch: error: invalid account' >&2; exit 1")
    with pytest.raises(Exception, match="invalid account"):
        submit_task(sweep, "meta_sae", [composed("task=meta_sae")], Settings())
    assert json.loads((sweep.folder / "sweep.json").read_text())["jobs"] == []
