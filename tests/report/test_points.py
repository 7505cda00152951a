"""What the page tells of points: every number as results.json has it, states, settings, curves."""

import json
import math

import pytest
from filelock import FileLock

from sae_sweeps.config.differences import flatten
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.report.points import answer, cautions, read_curve
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points, group_by_seed
from sae_sweeps.sweep.point_state import FAILED, LOCK, RUNNING, State
from tests.report.made import PROVENANCE, TRAINING, compared, put, some_metrics
from tests.report.reading import Page, page_of


@pytest.fixture
def mixed(tmp_path) -> Sweep:
    """Seeds of which one failed, and a point in each other state."""
    sweep = Sweep(tmp_path / "mixed")
    put(sweep, "seed0", "seed=0", metrics=some_metrics(0))
    put(sweep, "seed1", "seed=1", metrics=some_metrics(1, ce_recovered_mean=math.inf, ce_degradation=math.nan))
    put(sweep, "seed2", "seed=2", state=FAILED, reason="the loss is nan", curve=[{"step": 12, "tokens": 720}])
    put(sweep, "killed", "k=2", state=RUNNING)
    put(sweep, "waits", "k=3")
    put(sweep, "alone", "k=4", metrics=some_metrics(2))
    return sweep


def test_every_number_of_every_point_is_in_the_page_as_it_is_in_results_json(swept):
    shown = Page((swept / "report.html").read_text())
    files = {file.parent.name: json.loads(file.read_text()) for file in swept.glob("*/results.json")}
    assert len(files) == len(shown.data["points"]) == 4
    for row in shown.data["points"]:
        assert row["metrics"] == files[row["folder"]]["metrics"]
        assert row["training"] == files[row["folder"]]["training"]
        assert (row["state"], row["sweep"], row["key"]) == ("done", "first", row["folder"])
    (title,) = {element.text for element in shown.all("h1")}
    assert title == "sweep first"


def test_every_number_of_every_study_is_in_the_page_as_it_is_in_results_json(swept):
    shown = Page((swept / "report.html").read_text())
    studies = shown.block("studies")
    for task in ("stitch", "meta_sae"):
        files = {file.parent.name: json.loads(file.read_text()) for file in swept.glob(f"{task}/*/results.json")}
        assert shown.data["studies"][task] == len(files) == 2
        assert {study["key"] for study in studies[task]} == files.keys()
        for study in studies[task]:
            results = files[study["key"]]
            assert study["metrics"] == results["metrics"]
            assert study["seconds"] == results["seconds"]
            assert study["settings"] == results["study"]["settings"]
            if task == "stitch":
                for name in ("curves", "thresholds", "families"):
                    assert study[name] == results[name]
                assert (study["large"], study["small"]) == (results["study"]["large"], results["study"]["small"])
                assert sum(study["cosines"]["counts"]) == results["metrics"]["latents"]
                assert study["changes"]["of"] == results["metrics"]["latents_active"]
            else:
                assert study["sae"] == results["study"]["sae"]
                assert study["smaller"] == list(results["smaller"].values())
                assert study["per_latent"] == results["meta_latents_per_latent"]
                (matches,) = study["matches"].values()
                assert sum(matches["counts"]) == results["metrics"]["meta_latents"]


def test_points_in_every_state_are_in_the_page_with_their_reason(mixed):
    shown = page_of(mixed)
    found = {row["folder"]: (row["state"], row["step"], row["metrics"] is None) for row in shown.data["points"]}
    assert found == {
        "seed0": ("done", 0, False),
        "seed1": ("done", 0, False),
        "seed2": ("failed", 12, True),
        "killed": ("interrupted", 0, True),
        "waits": ("waiting", 0, True),
        "alone": ("done", 0, False),
    }
    reasons = {row["folder"]: row["reason"] for row in shown.data["points"]}
    assert reasons["seed2"] == "the loss is nan"
    assert reasons["killed"].endswith("is gone")
    assert "3 of 6 points are done; 1 failed, 1 interrupted, 1 waiting" in shown.by_id("answer").text
    assert shown.by_id("failures").text == "seed2: failed: the loss is nan"


def test_a_point_at_work_is_told_of(mixed):
    with FileLock(mixed.folder / "killed" / LOCK):
        assert "1 running" in page_of(mixed).by_id("answer").text


def test_a_page_without_results_says_so(tmp_path):
    sweep = Sweep(tmp_path / "new")
    put(sweep, "waits")
    shown = page_of(sweep)
    assert shown.by_id("answer").text == "No point is done yet. 0 of 1 points are done; 1 waiting."
    assert shown.data["explorer"] is None
    none = page_of(Sweep(tmp_path / "none")).by_id("answer").text
    assert none == "It has no points of its own; its studies are of SAEs from elsewhere."


SPARSE = [(16, 100, 0.3), (16, 200, 0.2), (32, 100, 0.1), (32, 200, 0.15)]  # k, dictionary size, NMSE


def test_the_answer_names_the_best_and_the_cheapest():
    points = [
        compared("dict_size=100", nmse=0.30001, l0=2.04, ce_degradation=0.5),
        compared("dict_size=200", nmse=0.2, l0=3.06, ce_degradation=0.25),
        compared("dict_size=300", nmse=0.4, l0=4.0, ce_degradation=-0.01),
    ]
    assert answer(group_by_seed(points)) == (
        "BatchTopK 200, k 32 reconstructs best: NMSE 0.2000 at L0 3.1, for a CE degradation of 0.2500 nats per token;"
        " BatchTopK 300, k 32 has the lowest, -0.0100."
    )
    seeds = [compared(f"seed={seed}", nmse=0.1 + seed / 10, l0=2.0, ce_degradation=0.0) for seed in (0, 1)]
    assert "NMSE 0.1500 ± 0.0707 at L0 2.0 ± 0.0" in answer(group_by_seed(seeds))


def test_the_answer_names_the_best_at_each_k_and_ranks_no_two_hooks_against_each_other():
    sparse = [compared(f"k={k}", f"dict_size={size}", nmse=nmse, l0=float(k)) for k, size, nmse in SPARSE]
    assert answer(group_by_seed(sparse)) == (
        "Lowest NMSE: BatchTopK 200, k 16, 0.2000 at L0 16.0; BatchTopK 100, k 32, 0.1000 at L0 32.0."
    )
    upper = compared("model.hook=blocks.4.hook_resid_pre", nmse=0.01, l0=32.0)
    shown = answer(group_by_seed([*sparse, upper]))
    assert "blocks.4.hook_resid_pre" in shown.split(". ")[0]
    assert "BatchTopK 200, k 16, 0.2000" in shown
    assert "not to be compared" in " ".join(cautions(group_by_seed([*sparse, upper])))


def test_cautions_name_noise_unequal_l0_and_dead_latents():
    first = compared("dict_size=100", nmse=0.100, l0=30.0, dead_fraction=0.1)
    close = compared("dict_size=200", nmse=0.101, l0=31.0, dead_fraction=0.1)
    assert cautions(group_by_seed([first, close])) == [
        "At k 32 the first two, of one seed each, differ by 1.0% in NMSE: it may be noise."
    ]
    clear = compared("dict_size=300", nmse=0.2, l0=33.0, dead_fraction=0.6)
    assert cautions(group_by_seed([first, clear])) == [
        "At k 32, L0 is between 30.0 and 33.0: more active latents, less error.",
        "Many latents are dead: BatchTopK 300, k 32 60.0%.",
    ]
    seeds = [compared(f"seed={seed}", nmse=0.1 + seed / 100, l0=30.0, dead_fraction=0.0) for seed in (0, 1)]
    assert "less than their seeds do" in cautions(group_by_seed([*seeds, close]))[0]
    assert cautions(group_by_seed([first])) == []


def test_groups_have_their_points_their_means_and_spreads(mixed):
    shown = page_of(mixed).data
    members = [[row["folder"] for row in shown["points"] if row["group"] == at] for at in range(len(shown["groups"]))]
    assert members == [["seed0", "seed1", "seed2"], ["killed"], ["waits"], ["alone"]]
    seeds, *_, alone = shown["groups"]
    numbers = [some_metrics(seed)["nmse"] for seed in (0, 1)]
    assert seeds["mean"]["nmse"] == pytest.approx(sum(numbers) / 2)
    assert seeds["spread"]["nmse"] == pytest.approx(abs(numbers[0] - numbers[1]) / math.sqrt(2))
    assert alone["mean"] == some_metrics(2)
    assert set(alone["spread"].values()) == {None}
    labels = [row["label"] for row in shown["points"]]
    assert labels[:3] == [f"BatchTopK 3072, k 32, seed {seed}" for seed in (0, 1, 2)]
    assert labels[3:] == [f"BatchTopK 3072, k {k}" for k in (2, 3, 4)]


def test_what_is_no_number_is_null(mixed):
    shown = page_of(mixed).data
    (row,) = [row for row in shown["points"] if row["folder"] == "seed1"]
    exact = some_metrics(1, ce_recovered_mean=None, ce_degradation=None)
    assert row["metrics"] == exact
    assert row["training"] == TRAINING
    assert shown["groups"][0]["mean"]["ce_degradation"] is None


def test_shared_settings_and_those_of_a_point_are_all_that_decide_it(mixed):
    shown = page_of(mixed).data
    configs = mixed.read()["points"]
    made_by = {"commit": PROVENANCE["commit"], **{f"packages.{k}": v for k, v in PROVENANCE["packages"].items()}}
    for row in shown["points"]:
        wanted = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in flatten(select_result_settings(configs[row["folder"]]["config"])).items()
        }
        assert shown["shared"] | row["settings"] == wanted | (made_by if row["metrics"] else {})
        assert not shown["shared"].keys() & row["settings"].keys()
        assert {"seed", "k"} <= row["settings"].keys()
    assert shown["shared"]["training.lr"] == "0.004"


@pytest.mark.parametrize("lines", [1, 299, 300, 301, 599, 600, 601, 12_345])
def test_a_curve_has_at_most_300_lines_evenly_apart_and_the_last_is_one_of_them(tmp_path, lines):
    sweep = Sweep(tmp_path / "long")
    curve = [{"step": at, "tokens": at, "mse": 1 / at} for at in range(1, lines + 1)]
    put(sweep, "long", metrics=some_metrics(0), curve=curve)
    (point,) = collect_points(sweep, {"long": State("done")})
    found = read_curve(point)
    assert found.keys() == {"tokens", "mse"}
    assert min(lines, 150) <= len(found["tokens"]) <= 300
    assert found["tokens"][-1] == lines
    steps = {b - a for a, b in zip(found["tokens"], found["tokens"][1:], strict=False)}
    assert len(steps) <= 1
    assert found["mse"] == [float(f"{1 / at:.5g}") for at in found["tokens"]]


def test_curves_are_in_the_order_of_the_points(tmp_path):
    sweep = Sweep(tmp_path / "curves")
    for at, words in enumerate((["seed=0"], ["k=2"], ["seed=1"])):
        put(sweep, f"point{at}", *words, metrics=some_metrics(at), curve=[{"step": 1, "tokens": at, "mse": math.inf}])
    put(sweep, "no curve", "k=3")
    shown = page_of(sweep)
    curves = dict(zip([row["folder"] for row in shown.data["points"]], shown.block("curves"), strict=True))
    assert curves == {**{f"point{at}": {"tokens": [at], "mse": [None]} for at in range(3)}, "no curve": None}


def test_all_curves_of_a_sweep_are_what_training_wrote(swept):
    shown = Page((swept / "report.html").read_text())
    for row, curve in zip(shown.data["points"], shown.block("curves"), strict=True):
        lines = [json.loads(line) for line in (swept / row["folder"] / "metrics.jsonl").read_text().splitlines()]
        assert {"mse", "loss", "l0", "lr"} < curve.keys()
        for name, values in curve.items():
            assert values == pytest.approx([line[name] for line in lines], rel=1e-4)
