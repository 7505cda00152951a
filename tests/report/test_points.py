"""Points in the page: exact metrics, states, settings, curves, and the summary above them."""

import json
import math
import re

import pytest
from filelock import FileLock

from sae_sweeps.config.differences import flatten, shorten_paths
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.report.cautions import list_cautions
from sae_sweeps.report.points import list_points, read_curve
from sae_sweeps.report.summary import describe_points, make_title, summarise
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points, group_by_seed
from sae_sweeps.sweep.point_state import FAILED, LOCK, RUNNING, State
from tests.report.made import PROVENANCE, TRAINING, compared, put, some_metrics
from tests.report.reading import Page, read_page


@pytest.fixture
def mixed(tmp_path) -> Sweep:
    """Three seeds, one of which failed, and points that are interrupted, waiting and done."""
    sweep = Sweep(tmp_path / "mixed")
    put(sweep, "seed0", "seed=0", metrics=some_metrics(0))
    put(sweep, "seed1", "seed=1", metrics=some_metrics(1, ce_recovered_mean=math.inf, ce_degradation=math.nan))
    put(sweep, "seed2", "seed=2", state=FAILED, reason="the loss is nan", curve=[{"step": 12, "tokens": 720}])
    put(sweep, "killed", "k=2", state=RUNNING)
    put(sweep, "waits", "k=3")
    put(sweep, "alone", "k=4", metrics=some_metrics(2))
    return sweep


def test_the_numbers_of_points_equal_those_of_results_json(swept):
    shown = Page((swept / "report.html").read_text())
    files = {file.parent.name: json.loads(file.read_text()) for file in swept.glob("*/results.json")}
    assert len(files) == len(shown.data["points"]) == 4
    for row in shown.data["points"]:
        assert row["metrics"] == files[row["folder"]]["metrics"]
        assert row["training"] == files[row["folder"]]["training"]
        assert (row["state"], row["sweep"], row["key"]) == ("done", "first", row["folder"])
    (title,) = {element.text for element in shown.find_all("h1")}
    assert re.fullmatch(r"SAE sweep first: 4 points, layer \d of \S+", title)


def test_the_numbers_of_studies_equal_those_of_results_json(swept):
    shown = Page((swept / "report.html").read_text())
    studies = shown.block("studies")
    for task in ("stitch", "meta_sae", "meta_sizes"):
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
                named = [results["study"]["large"], results["study"]["small"]]
                assert [study["large"], study["small"]] == shorten_paths(named)
                assert sum(study["cosines"]["counts"]) == results["metrics"]["latents"]
                assert study["changes"]["total"] == results["metrics"]["latents_active"]
            elif task == "meta_sizes":
                for name in ("sizes", "shared", "shared_shuffled"):
                    assert study[name] == results[name]
                assert study["points"] == [one["point"] for one in results["sizes"]]
            else:
                assert study["sae"] == shorten_paths(results["study"]["sae"])
                assert study["smaller"] == shorten_paths(list(results["smaller"].values()))
                assert study["per_latent"] == results["meta_latents_per_latent"]
                (matches,) = study["matches"].values()
                assert sum(matches["counts"]) == results["metrics"]["meta_latents"]


def test_points_in_every_state_are_shown_with_their_reason(mixed):
    shown = read_page(mixed)
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
    assert reasons["killed"].endswith("ended before the point was done")
    assert "3 of 6 points are done; 1 failed, 1 interrupted, 1 waiting" in shown.find_id("summary").text
    assert shown.find_id("failures").text == "seed2: failed: the loss is nan"


def test_a_running_point_is_counted(mixed):
    with FileLock(mixed.folder / "killed" / LOCK):
        assert "1 running" in read_page(mixed).find_id("summary").text


def test_the_summary_without_results(tmp_path):
    sweep = Sweep(tmp_path / "new")
    put(sweep, "waits")
    shown = read_page(sweep)
    assert shown.find_id("summary").text == "No point is done yet. 0 of 1 points are done; 1 waiting."
    assert shown.data["explorer"] is None
    none = read_page(Sweep(tmp_path / "none")).find_id("summary").text
    assert none == "There are no points. The studies below are about SAEs that were trained elsewhere."


SPARSE = [(16, 100, 0.3), (16, 200, 0.2), (32, 100, 0.1), (32, 200, 0.15)]  # k, dictionary size, NMSE


def test_the_summary_has_the_lowest_nmse_and_the_lowest_ce_degradation():
    points = [
        compared("dict_size=100", nmse=0.30001, l0=2.04, ce_degradation=0.5),
        compared("dict_size=200", nmse=0.2, l0=3.06, ce_degradation=0.25),
        compared("dict_size=300", nmse=0.4, l0=4.0, ce_degradation=-0.01),
    ]
    assert summarise(group_by_seed(points)) == (
        "Lowest NMSE at k 32: BatchTopK 200, k 32, 0.2000 at L0 3.1 and a CE degradation of 0.2500 nats per token."
        " Lowest CE degradation: BatchTopK 300, k 32, -0.0100 nats per token."
    )
    seeds = [compared(f"seed={seed}", nmse=0.1 + seed / 10, l0=2.0, ce_degradation=0.0) for seed in (0, 1)]
    assert "0.1500 ± 0.0707 at L0 2.0 ± 0.0" in summarise(group_by_seed(seeds))


def test_the_summary_has_the_best_at_each_k_and_keeps_hooks_apart():
    sparse = [compared(f"k={k}", f"dict_size={size}", nmse=nmse, l0=float(k)) for k, size, nmse in SPARSE]
    assert summarise(group_by_seed(sparse)) == (
        "Lowest NMSE at each k: BatchTopK 200, k 16, 0.2000 at L0 16.0; BatchTopK 100, k 32, 0.1000 at L0 32.0."
    )
    apart = [compared(f"k={k}", nmse=k / 100, l0=float(k)) for k in (8, 16)]
    assert summarise(group_by_seed(apart)) == (
        "One SAE at each k: BatchTopK 3072, k 8, NMSE 0.0800 at L0 8.0; BatchTopK 3072, k 16, NMSE 0.1600 at L0 16.0."
    )
    assert summarise(group_by_seed([*sparse, apart[0]])) == (
        "Lowest NMSE at k 16, 32: BatchTopK 200, k 16, 0.2000 at L0 16.0; BatchTopK 100, k 32, 0.1000 at L0 32.0. "
        "One SAE at k 8: BatchTopK 3072, k 8, NMSE 0.0800 at L0 8.0."
    )
    upper = compared("model.hook=blocks.4.hook_resid_pre", nmse=0.01, l0=32.0)
    shown = summarise(group_by_seed([*sparse, upper]))
    assert "blocks.4.hook_resid_pre" in shown.split(". ")[0]
    assert "BatchTopK 200, k 16, 0.2000" in shown
    assert "can be compared only where all three are equal" in " ".join(list_cautions(group_by_seed([*sparse, upper])))


def test_a_single_a_diverged_and_an_equal_point_are_not_called_the_lowest():
    one, equal = (compared(f"dict_size={size}", nmse=0.25, l0=2.0) for size in (100, 200))
    diverged = compared("training.lr=1", "dict_size=300", nmse=1.5, l0=2.0)
    assert summarise(group_by_seed([one])) == "One SAE: BatchTopK 100, k 32, NMSE 0.2500 at L0 2.0."
    worse = "Worse than the mean, with an NMSE of 1 or more: BatchTopK 300, k 32."
    assert summarise(group_by_seed([diverged])) == worse
    assert summarise(group_by_seed([one, diverged])) == f"One SAE: BatchTopK 100, k 32, NMSE 0.2500 at L0 2.0. {worse}"
    assert summarise(group_by_seed([one, equal])).endswith("0.2500 at L0 2.0, and 1 with the same NMSE.")
    assert list_cautions(group_by_seed([one, diverged])) == [
        "BatchTopK 300, k 32: NMSE 1.5: worse than the mean of each activation's entries as its reconstruction; "
        "did the training diverge, or is the SAE of another model, hook or normalisation?"
    ]


def test_the_model_s_own_cross_entropy_is_shown_with_a_remark_where_it_is_high():
    good, bad = compared(nmse=0.1, ce_model=5.99), compared(nmse=0.1, ce_model=6.5)
    assert describe_points([good])[-1] == "The model's own cross entropy on the held-out text: 5.990 nats per token"
    assert describe_points([good, bad])[-1].endswith(": 5.990 to 6.500 nats per token")
    assert list_cautions(group_by_seed([good])) == []
    (caution,) = list_cautions(group_by_seed([bad]))
    assert caution.startswith(
        "The model predicts this text badly: its own cross entropy is 6.50 nats per token (perple"
    )


def test_the_title_says_what_the_page_is_about():
    hooks = ["blocks.3.hook_resid_pre", "blocks.3.hook_resid_post", "blocks.4.hook_resid_pre", "hook_embed"]
    points = [compared("model.name=/models/gpt2/", f"model.hook={hook}") for hook in hooks]
    assert make_title(["ks"], points[:2]) == "SAE sweep ks: 2 points, layer 3 of models/gpt2"
    assert make_title(["ks", "lrs"], points[:3]) == "SAE sweeps ks, lrs: 3 points, 2 layers of models/gpt2"
    assert make_title(["sweep"], points[3:]) == "SAE sweep: 1 point, hook_embed of models/gpt2"
    other = compared("model.name=other")
    assert make_title(["ks"], [other, *points[:1]]) == "SAE sweep ks: 2 points, 2 models"
    assert make_title(["ks"], []) == "SAE sweep ks: 0 points"


def test_points_have_short_labels_of_what_differs(tmp_path):
    sweep = Sweep(tmp_path / "rates")
    for lr, seed in ((0.01, 0), (0.01, 1), (0.02, 0)):
        put(sweep, f"{lr}-{seed}", f"training.lr={lr}", f"seed={seed}", metrics=some_metrics(seed))
    shown = [(row["short"], row["label"]) for row in read_page(sweep).data["points"]]
    assert shown == [
        ("lr 0.01, seed 0", "BatchTopK 3072, k 32, training.lr 0.01, seed 0"),
        ("lr 0.01, seed 1", "BatchTopK 3072, k 32, training.lr 0.01, seed 1"),
        ("lr 0.02, seed 0", "BatchTopK 3072, k 32, training.lr 0.02"),
    ]
    (alone,) = list_points(group_by_seed([compared()]))
    assert (alone["short"], alone["parts"]) == (alone["label"], {})
    two = list_points(group_by_seed([compared(sweep="a"), compared("k=8", sweep="b")]))
    assert [row["short"] for row in two] == ["a, k 32", "b, k 8"]


def test_cautions_on_noise_unequal_l0_and_dead_latents():
    first = compared("dict_size=100", nmse=0.100, l0=30.0, dead_fraction=0.1)
    close = compared("dict_size=200", nmse=0.101, l0=31.0, dead_fraction=0.1)
    assert list_cautions(group_by_seed([first, close])) == [
        "At k 32, the two lowest NMSEs differ by 1.0% with one seed each; other seeds may change the order."
    ]
    clear = compared("dict_size=300", nmse=0.2, l0=33.0, dead_fraction=0.6)
    assert list_cautions(group_by_seed([first, clear])) == [
        "At k 32, L0 ranges from 30.0 to 33.0; a higher L0 alone lowers the error.",
        "Many latents are dead: BatchTopK 300, k 32 (60.0%).",
    ]
    seeds = [compared(f"seed={seed}", nmse=0.1 + seed / 100, l0=30.0, dead_fraction=0.0) for seed in (0, 1)]
    assert "differ by less than their standard deviation over seeds" in list_cautions(group_by_seed([*seeds, close]))[0]
    assert list_cautions(group_by_seed([first])) == []


def test_a_caution_on_several_k_is_one_sentence():
    numbers = [(f"k={k}", f"dict_size={size}", nmse) for k in (8, 16) for size, nmse in ((100, 0.1), (200, 0.101))]
    close = [compared(*words, nmse=nmse, l0=10.0, dead_fraction=0.0) for *words, nmse in numbers]
    assert list_cautions(group_by_seed(close)) == [
        "At k 8, 16, the two lowest NMSEs differ by 1.0% with one seed each; other seeds may change the order."
    ]


def test_groups_have_means_and_standard_deviations(mixed):
    shown = read_page(mixed).data
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


def test_non_finite_metrics_are_null(mixed):
    shown = read_page(mixed).data
    (row,) = [row for row in shown["points"] if row["folder"] == "seed1"]
    exact = some_metrics(1, ce_recovered_mean=None, ce_degradation=None)
    assert row["metrics"] == exact
    assert row["training"] == TRAINING
    assert shown["groups"][0]["mean"].keys() == some_metrics(0).keys() - {"ce_recovered_mean", "ce_degradation"}


def test_shared_and_own_settings_together_are_all_settings_of_a_point(mixed):
    shown = read_page(mixed).data
    configs = mixed.read()["points"]
    provenance = {"commit": PROVENANCE["commit"], **{f"packages.{k}": v for k, v in PROVENANCE["packages"].items()}}
    for row in shown["points"]:
        wanted = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in shorten_paths(flatten(select_result_settings(configs[row["folder"]]["config"]))).items()
        }
        assert shown["shared"] | row["settings"] == wanted | provenance  # of the others, for a point without results
        assert not shown["shared"].keys() & row["settings"].keys()
        assert {"seed", "k"} <= row["settings"].keys()
    assert shown["shared"]["training.tokens"] == "327680"


@pytest.mark.parametrize("lines", [1, 299, 300, 301, 599, 600, 601, 12_345])
def test_curves_are_thinned_evenly_to_at_most_300_lines_with_the_last(tmp_path, lines):
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


def test_curves_are_in_the_order_of_points(tmp_path):
    sweep = Sweep(tmp_path / "curves")
    for at, words in enumerate((["seed=0"], ["k=2"], ["seed=1"])):
        put(sweep, f"point{at}", *words, metrics=some_metrics(at), curve=[{"step": 1, "tokens": at, "mse": math.inf}])
    put(sweep, "no curve", "k=3")
    shown = read_page(sweep)
    curves = dict(zip([row["folder"] for row in shown.data["points"]], shown.block("curves"), strict=True))
    assert curves == {**{f"point{at}": {"tokens": [at], "mse": [None]} for at in range(3)}, "no curve": None}


def test_curves_equal_those_of_metrics_jsonl(swept):
    shown = Page((swept / "report.html").read_text())
    for row, curve in zip(shown.data["points"], shown.block("curves"), strict=True):
        lines = [json.loads(line) for line in (swept / row["folder"] / "metrics.jsonl").read_text().splitlines()]
        assert {"mse", "loss", "l0", "lr"} < curve.keys()
        for name, values in curve.items():
            assert values == pytest.approx([line[name] for line in lines], rel=1e-4)
