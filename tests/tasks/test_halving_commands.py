"""Halving as a command: what it prints, the states, the report, and the command again with and without halving."""

import json
import re

import pytest

from sae_sweeps.launchers.sweepers import OURS
from tests.commands import weights
from tests.conftest import launch

SWEPT = ("-m", "training.lr=1e-4,3e-2,1e-2,3e-3", "sae=topk,batchtopk", "name=halved")
HALVING = ("hydra/sweeper=halving", "training.tokens=2400", "halving.keep=0.5")


@pytest.fixture(scope="module")
def halved(tmp_path_factory, tiny):
    """The working folder of a sweep of eight points with halving, and what the command printed."""
    folder = tmp_path_factory.mktemp("halved")
    done = launch(*SWEPT, *tiny, *HALVING, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def read_states(folder):
    content = json.loads((folder / "outputs" / "halved" / "sweep.json").read_text())
    return [point["state"] for point in content["points"].values()]


def test_one_of_eight_points_is_trained_to_its_end(halved):
    folder, output = halved
    assert sorted(read_states(folder)) == ["done", *["pruned"] * 7]
    assert "1 of 8 points finished, 7 pruned" in output
    # rungs after 300, 600 and 1200 of 2400 activations: 4 points stop at the first, 2 at the second, 1 at the third
    trained = 4 * 300 + 2 * 600 + 1200 + 2400
    line = f"Halving: 7 of 8 points were pruned; the points were trained on {trained:,} of 19,200 activations, 31%."
    assert line in output


def test_overrides_of_a_point_say_that_it_was_halved(halved):
    folder, _ = halved
    (file, *_) = sorted((folder / "outputs" / "halved").glob("*/.hydra/overrides.yaml"))
    assert "halving.enabled=True" in file.read_text()
    assert [name.rpartition(".")[2] for name in OURS] == ["Sweeper", "HalvingSweeper"]


def test_status_and_report_show_the_bracket(halved):
    folder, _ = halved
    status = launch("task=status", "name=halved", cwd=folder).stdout
    assert "8 points, 1 done, 7 pruned" in status
    assert "rerun" not in status, "there is nothing to resume"
    report = launch("task=report", "name=halved", "tracking=off", cwd=folder)
    assert "PRUNED" not in report.stdout
    page = (folder / "outputs" / "halved" / "report.html").read_text()
    (section,) = re.findall(r'<section id="halving".*?</section>', page, flags=re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", section)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert cells[0] == ["SAE", "at 300", "at 600", "at 1,200", "NMSE at k at the end", "state"]
    assert [row[-1] for row in cells[1:]] == ["done", *["pruned"] * 7]
    assert [sum("✓" in cell for cell in row) for row in cells[1:]] == [3, 2, 1, 1, 0, 0, 0, 0]
    assert [sum("✗" in cell for cell in row) for row in cells[1:]] == [0, *[1] * 7]
    stopped = [float(row[1].split()[0]) for row in cells[5:]]
    assert stopped == sorted(stopped)
    assert max(float(row[1].split()[0]) for row in cells[1:5]) <= stopped[0]


def test_the_command_again_trains_nothing_and_without_halving_trains_all(halved, tiny, tmp_path):
    folder, _ = halved
    again = launch(*SWEPT, *tiny, *HALVING, cwd=folder)
    assert again.returncode == 0
    assert "the point was pruned and is skipped" in again.stdout
    assert "training for" not in again.stdout + again.stderr
    plan = launch(*SWEPT, *tiny, *HALVING, "task=plan", cwd=folder).stdout
    assert "8 (1 are done already, 7 are pruned)" in plan
    full = launch(*SWEPT, *tiny, cwd=folder)
    assert full.returncode == 0, full.stderr
    assert read_states(folder) == ["done"] * 8
    alone = launch(*SWEPT, *tiny, cwd=tmp_path)
    assert alone.returncode == 0
    assert weights(folder / "outputs" / "halved") == weights(tmp_path / "outputs" / "halved")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["halving.keep=2"], "halving.keep=2.0: must be above 0 and at most 0.95. Fix: halving.keep=0.5"),
        (["halving.within=[lr]"], "halving.within=lr: is no setting of this point"),
        (["objective=[nmse,l0]"], "objective=nmse,l0: halving compares points by one metric"),
        (["training.tokens=300"], "training.tokens=300: points are compared at ends of chunks, of 300 activations"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(tiny, tmp_path, words, message):
    refused = launch(*SWEPT, *tiny, "hydra/sweeper=halving", *words, cwd=tmp_path)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert not (tmp_path / "outputs").exists()
