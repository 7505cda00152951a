"""Task `scaling` on a sweep of made points: what it prints, writes and refuses, and the section of the report."""

import json
import subprocess
import sys

import pytest

from sae_sweeps.report.scaling import describe_law, list_predictions
from sae_sweeps.sweep import Sweep
from tests.report.made import put
from tests.report.reading import Page
from tests.tasks.conftest import contents

GIVEN = ["task=scaling", "name=sizes", "tracking=off"]
SIZES = (384, 768, 1536, 3072, 6144)


def bend(size: int) -> float:
    return 0.4 * (size / 1000) ** -0.6 + 0.06


@pytest.fixture
def sizes(tmp_path) -> Sweep:
    """A sweep of five sizes of TopK, the largest 5 % below a law, and of two sizes of BatchTopK without a law."""
    sweep = Sweep(tmp_path / "outputs" / "sizes")
    for size in SIZES:
        nmse = bend(size) * (0.95 if size == SIZES[-1] else 1 + 1e-3 * (-1) ** SIZES.index(size))
        put(sweep, f"topk-{size}", "sae=topk", f"dict_size={size}", metrics={"nmse": nmse, "l0": 32.0})
    for size in SIZES[:2]:
        put(sweep, f"batchtopk-{size}", "sae=batchtopk", f"dict_size={size}", metrics={"nmse": 0.1, "l0": 32.0})
    return sweep


def read(sweep: Sweep) -> dict:
    return json.loads((sweep.folder / "scaling.json").read_text())


def test_the_task_prints_and_writes_laws_and_renews_the_report(sizes, command):
    ran = command(*GIVEN, "scaling.dict_sizes=[12288]")
    assert (ran.code, ran.err) == (0, "")
    (law,) = read(sizes)["laws"]
    assert law["by_k"][0]["exponent"]["low"] < law["by_k"][0]["exponent"]["high"]
    (held,) = law["held_out"]
    assert held["miss"] == pytest.approx(1 / 0.95 - 1, abs=0.01)
    printed = " ".join(ran.out.split())
    assert f"{held['miss']:.1%} too high" in printed
    assert "TopK 12288, k 32, 327,680 tokens: predicted" in printed
    assert "not measured yet." in printed
    assert "BatchTopK: a law of 2 parameters with error bars takes 3 SAEs" in printed
    assert read(sizes)["refused"].keys() == {"BatchTopK"}
    page = Page((sizes.folder / "report.html").read_text())
    assert [one["label"] for one in page.data["scaling"]] == ["TopK"]
    for line in describe_law(law):
        assert line in page.find_id("scaling").text


def test_a_prediction_stays_when_its_point_is_trained(sizes, command):
    command(*GIVEN, "scaling.dict_sizes=[12288]")
    before = read(sizes)["laws"][0]
    put(sizes, "topk-12288", "sae=topk", "dict_size=12288", metrics={"nmse": 0.2, "l0": 32.0})
    command("task=report", *GIVEN[1:])
    shown = Page((sizes.folder / "report.html").read_text()).data["scaling"][0]["predictions"]
    command(*GIVEN, "scaling.dict_sizes=[12288]")
    (after,) = read(sizes)["laws"]
    assert (
        after["predictions"]
        == shown
        == [{**before["predictions"][0], "nmse": 0.2, "miss": pytest.approx(-0.25, abs=0.1)}]
    )
    assert {**after, "predictions": []} == {**before, "predictions": []}
    rows = list_predictions([after])
    assert [row[1] for row in rows[1:]] == ["6,144", "12,288"]
    assert rows[2][5] == "0.2000"


def test_a_budget_is_spent_on_a_size_in_words(sizes, command):
    ran = command(*GIVEN, "scaling.hours=100")
    printed, (law,) = " ".join(ran.out.split()), read(sizes)["laws"]
    (best,) = law["budget"]["best"]
    assert best["dict_size"] == 4 * 6144
    assert f"TopK 24576, k 32, 327,680 tokens: predicted {best['value']:.4f} (" in printed
    assert "the lowest that can be trained in 100 hours at the assumed speed of a CPU" in printed
    printed = " ".join(command(*GIVEN, "scaling.hours=1e-6").out.split())
    assert "TopK: no size of this law can be trained in 1e-06 hours at the assumed speed" in printed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["scaling.dict_sizes=[0]"], "error: scaling.dict_sizes=[0]: must be whole numbers above 0. Fix: "),
        (["scaling.tokens=[-1]"], "error: scaling.tokens=[-1]: must be whole numbers above 0. Fix: "),
        (["scaling.hours=0"], "error: scaling.hours=0.0: must be greater than 0, or null. Fix: scaling.hours=1"),
        (["name=size"], "error: name=size: no such sweep in outputs; the sweeps there are: sizes. Fix: name=sizes"),
    ],
)
def test_an_invalid_setting_is_refused_and_nothing_is_written(sizes, command, tmp_path, words, line):
    before = contents(tmp_path)
    ran = command(*[word for word in GIVEN if word.partition("=")[0] not in str(words)], *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(line)
    assert contents(tmp_path) == before


def test_a_sweep_without_enough_points_has_no_law(tmp_path, command):
    sweep = Sweep(tmp_path / "outputs" / "sizes")
    put(sweep, "waits", "dict_size=384")
    ran = command(*GIVEN)
    assert (ran.code, ran.err) == (1, "scaling: the sweep has no points\n")
    put(sweep, "done", "dict_size=768", metrics={"nmse": 0.1, "l0": 32.0})
    ran = command(*GIVEN)
    line = "a law of the dictionary size takes several sizes, and there is 1"
    assert (ran.code, ran.err) == (1, f"scaling: BatchTopK: {line}\n")
    assert not (sweep.folder / "scaling.json").exists()


def test_laws_are_fitted_without_torch():
    program = "import sys; import sae_sweeps.sweep.scaling_laws; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
