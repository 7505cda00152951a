"""A sweep.json that is damaged or gone: rebuilt from the folders of points and jobs, and never taken for empty."""

import json
import logging
from pathlib import Path

import pytest

from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.launchers.slurm.submission import submit
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.runtime.errors import ConfigError, SlurmError
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep import sweep as sweep_module
from sae_sweeps.sweep.slurm_queue import Job
from tests.report.made import compared, config, put, some_metrics

DAMAGED = [b"", b"{", b"null", b"[]", b"3", b"{}", b'{"points": []}', b'{"points": {"a": {}}}', b"\xff", b"[" * 100_000]


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    """A sweep with a point that is done, one that failed, and one that waits."""
    sweep_module._warn_once.cache_clear()
    sweep = Sweep(tmp_path / "sweep")
    put(sweep, "done", "k=2", metrics=some_metrics(1))
    put(sweep, "broken", "k=3", state="failed", reason="the loss is nan")
    put(sweep, "waits", "k=4")
    return sweep


def summary(sweep: Sweep) -> list[tuple]:
    return [(point.name, point.state, point.config["k"], point.metrics) for point in load_sweep(sweep).points]


def damaged_files(sweep: Sweep) -> list[Path]:
    return list(sweep.folder.glob("sweep.json.damaged-*"))


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_sweep_is_rebuilt_and_named_and_kept_aside(sweep, content, caplog):
    before = summary(sweep)
    sweep.file.write_bytes(content)
    assert sweep.exists()
    with caplog.at_level(logging.WARNING):
        assert summary(sweep) == before
    assert f"{sweep.file} " in caplog.text
    assert "it is rebuilt from the folders of 3 points and 0 jobs" in caplog.text
    assert sweep.file.read_bytes() == content  # reading changes no file
    sweep.set_state("waits", "queued")
    assert [file.read_bytes() for file in damaged_files(sweep)] == [content]
    assert json.loads(sweep.file.read_text())["points"]["waits"]["state"] == "queued"
    assert [name for name, *_ in summary(sweep)] == ["done", "broken", "waits"]


def test_a_missing_file_or_a_folder_in_its_place_is_rebuilt(sweep):
    before = summary(sweep)
    sweep.file.unlink()
    assert sweep.exists()
    assert summary(sweep) == before
    sweep.file.mkdir()
    assert summary(sweep) == before
    sweep.add({"new": config("k=5")})
    assert [name for name, *_ in summary(sweep)] == ["done", "broken", "waits", "new"]


def test_the_file_of_another_sweep_is_not_believed(sweep, tmp_path):
    other = Sweep(tmp_path / "other")
    put(other, "elsewhere", "k=9")
    before = summary(sweep)
    sweep.file.write_bytes(other.file.read_bytes())
    assert summary(sweep) == before


def test_a_new_sweep_is_empty_without_a_word(tmp_path, caplog):
    assert Sweep(tmp_path / "new").read()["points"] == {}
    assert not Sweep(tmp_path / "new").exists()
    assert caplog.text == ""


def test_a_damaged_sweep_with_nothing_to_rebuild_it_from_is_refused(tmp_path):
    sweep = Sweep(tmp_path / "sweep")
    sweep.folder.mkdir()
    sweep.file.write_bytes(b"{")
    for use in (sweep.read, lambda: sweep.add({"three": config("k=5")}) or load_sweep(sweep)):
        with pytest.raises(ConfigError, match=r"name=sweep: .*sweep\.json is not JSON .*Fix: move the file away"):
            use()
        break
    sweep.set_state("one", "done")  # a point in training continues
    assert sweep.file.read_bytes() == b"{"


def test_points_of_earlier_versions_are_found_by_their_results(sweep, caplog):
    for name in ("done", "broken"):
        (sweep.folder / name / "settings.json").unlink()
    results = sweep.folder / "done" / "results.json"
    content = json.loads(results.read_text()) | {"config": dict(compared("k=2").config)}
    results.write_text(json.dumps(content))
    sweep.file.unlink()
    assert {name for name, *_ in summary(sweep)} == {"done", "waits"}
    assert f"{sweep.folder / 'broken'}: the settings of this point are lost" in caplog.text


def test_a_queued_job_is_never_submitted_twice(sweep, slurm):
    slurm.submits()
    slurm.queues()
    points = [point for point in sweep.points() if point.name == "waits"]
    submitted = submit(sweep, points, ["report"], Settings())
    assert (submitted.jobs, submitted.follow_ups) == (["101"], {"report": "102"})
    jobs = sweep.read()["jobs"]
    slurm.queues(Job("101_0", jobs[0]["name"], "PENDING", 0, None), Job("102_0", jobs[1]["name"], "PENDING", 0, None))
    for damage in (b"{", b"", b"{}"):
        sweep.file.write_bytes(damage)
        again = submit(sweep, points, ["report"], Settings())
        assert (again.jobs, again.follow_ups, again.under_way) == ([], {}, 1)
        assert sweep.read()["jobs"] == jobs
    assert len(slurm.calls("sbatch")) == 2


def test_an_older_copy_of_the_file_loses_no_point_and_no_job(sweep, slurm, caplog):
    slurm.submits()
    slurm.queues()
    older = sweep.file.read_bytes()
    put(sweep, "later", "k=5")
    submit(sweep, [point for point in sweep.points() if point.name == "later"], [], Settings())
    before, jobs = summary(sweep), sweep.read()["jobs"]
    slurm.queues(Job("101_0", jobs[0]["name"], "PENDING", 0, None))
    sweep.file.write_bytes(older)
    assert [name for name, *_ in summary(sweep)] == [name for name, *_ in before]
    assert sweep.read()["jobs"] == jobs
    assert "is not up to date; 1 point and 1 job whose folders are here are added" in caplog.text
    assert not submit(sweep, sweep.points()[-1:], [], Settings()).jobs


@pytest.mark.parametrize("damage", [b"{", b"", b"{}", None])
def test_nothing_is_submitted_while_a_job_has_unknown_points(sweep, slurm, damage):
    slurm.submits()
    slurm.queues()
    points = [point for point in sweep.points() if point.name == "waits"]
    submit(sweep, points, [], Settings())
    (job,) = sweep.read()["jobs"]
    file = sweep.folder / "slurm" / job["name"] / "submission.json"
    file.unlink() if damage is None else file.write_bytes(damage)
    slurm.queues(Job("101_0", job["name"], "PENDING", 0, None))
    for content in (sweep.file.read_bytes(), b"{"):
        sweep.file.write_bytes(content)
        with pytest.raises(
            SlurmError, match=r"job 101_0 is queued or running, .*submission\.json .*Fix: scancel 101_0"
        ):
            submit(sweep, points, [], Settings())
    slurm.queues()  # it has ended
    assert submit(sweep, points, [], Settings()).jobs == ["102"]
