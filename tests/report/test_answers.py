"""Which SAE is better, how surely, and which to take: of points whose sums are made up, so the truth is known."""

import re

import numpy as np
import pytest

from sae_sweeps.evaluation.bootstrap import Interval, describe_intervals
from sae_sweeps.evaluation.unit_sums import UnitSums
from sae_sweeps.report.answers import describe_answers, format_difference, list_differences
from sae_sweeps.report.contests import find_contests
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.report.page import build_page
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.unit_sums import write_sums
from tests.report.made import put, results, some_metrics
from tests.report.reading import Page

DOCUMENTS = 80
SIZE_U = np.random.default_rng(0).integers(50, 500, DOCUMENTS).astype(float)
HARD_U = np.random.default_rng(1).lognormal(0, 0.3, DOCUMENTS)


def make_sums(nmse, ce, *, text="a", noise=0.002, seed=0, unit="document", at_k=True):
    """Sums of an SAE with about these metrics: hard documents are hard for all SAEs, with some noise of its own."""
    rng = np.random.default_rng(seed)
    error_U = SIZE_U * nmse * (HARD_U / np.average(HARD_U, weights=SIZE_U) + rng.normal(0, noise, DOCUMENTS))
    rise_U = SIZE_U * (ce + rng.normal(0, 10 * noise, DOCUMENTS))
    sums = {"activations": SIZE_U, "error": error_U, "predictions": SIZE_U}
    sums |= {"ce_model": 3 * SIZE_U * HARD_U, "ce": 3 * SIZE_U * HARD_U + rise_U}
    more = {"error_at_k": error_U.copy(), "ce_at_k": sums["ce"].copy()} if at_k else {}
    return UnitSums(unit, text, {**sums, **more})


def put_point(sweep, name, *words, sums=None, nmse=0.1):
    folder = put(sweep, name, *words)
    intervals = write_sums(folder, sums)
    if sums is not None:
        part_U, whole_U = sums.get_ratio("nmse")
        nmse = part_U.sum() / whole_U.sum()
    content = results(None, some_metrics(0, nmse=nmse))
    point_state.write_results(folder, {**content, "intervals": intervals})


def answer(sweep):
    return describe_answers(find_contests(load_sweep(sweep).points))


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path / "outputs" / "first")


def test_a_clear_difference_is_stated_with_its_interval_and_one_that_is_not_is_none(sweep):
    put_point(sweep, "a", "sae=topk", "k=4", sums=make_sums(0.100, 0.30, seed=1))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=make_sums(0.090, 0.30, seed=2))
    pair, choice, method = answer(sweep)
    first, _, rest = pair.partition(": its NMSE is lower by ")
    assert first.startswith("Of these two trained SAEs, BatchTopK ")
    assert " beats TopK " in first
    assert first.endswith("at an L0 of 4")
    value, low, high = (float(word.strip("(),")) for word in rest.split()[:4] if word != "to")
    assert 0.009 < low < value < high < 0.011
    assert ", and their CE degradations cannot be distinguished: " in pair
    assert choice.startswith("With a budget of L0 4, or of 0.")
    assert "cannot be distinguished from it" in choice
    assert method.endswith("from a paired bootstrap over 80 documents of the held-out text.")


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.00162, 0.00087, 0.00237), "0.00162 (0.00087 to 0.00237)"),
        ((0.0131, 0.0004, 0.0253), "0.0131 (0.0004 to 0.0253)"),
        ((1.0, -2.0, 4.0), "1.000 (-2.000 to 4.000)"),
        ((0.0, 0.0, 0.0), "0.0000 (0.0000 to 0.0000)"),
    ],
)
def test_numbers_have_the_digits_that_are_known(numbers, text):
    assert format_difference(Interval(*numbers), "nmse") == text


def test_equal_saes_do_not_differ(sweep):
    put_point(sweep, "a", "sae=topk", "k=4", sums=make_sums(0.1, 0.3, seed=1))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=make_sums(0.1, 0.3, seed=2))
    assert "cannot be distinguished by NMSE at an L0 of 4: they differ by " in answer(sweep)[0]
    assert "beats" not in " ".join(answer(sweep))
    (titles, row) = list_differences(find_contests(load_sweep(sweep).points))
    assert len(titles) == len(row) == 5
    assert row[2].endswith(", unclear")


def test_the_ce_degradation_may_order_saes_otherwise(sweep):
    put_point(sweep, "a", "sae=topk", "k=4", sums=make_sums(0.10, 0.2, seed=1))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=make_sums(0.09, 0.3, seed=2))
    assert ", but the CE degradation of TopK" in answer(sweep)[0]
    assert " nats of CE degradation, take TopK" in answer(sweep)[1]


def test_the_choice_is_the_best_at_each_k_and_only_if_more_l0_buys_less_ce(sweep):
    for number, (k, ce) in enumerate(((4, 0.3), (8, 0.2), (16, 0.25))):
        put_point(sweep, f"a{k}", "sae=topk", f"k={k}", sums=make_sums(0.1, ce, seed=number))
        put_point(sweep, f"b{k}", "sae=batchtopk", f"k={k}", sums=make_sums(0.09, ce + 0.1, seed=9 + number))
    (choice,) = (line for line in answer(sweep) if line.startswith("With a budget"))
    budgets = re.findall(r"of L0 (\d+), or of (\S+) nats of CE degradation, take TopK \d+, k (\d+)\.", choice)
    assert [(l0, k) for l0, _, k in budgets] == [("4", "4"), ("8", "8")]
    assert [float(ce) for _, ce, _ in budgets] == pytest.approx([0.3, 0.2], abs=0.01)
    assert choice.count("take") == 2


def test_best_of_each_size_and_of_all(sweep):
    for number, (name, size, nmse) in enumerate((("topk", 32, 0.2), ("batchtopk", 32, 0.21), ("topk", 64, 0.1))):
        sums = make_sums(nmse, 0.3, seed=number)
        put_point(sweep, f"p{number}", f"sae={name}", f"dict_size={size}", "k=4", sums=sums)
    lines = [line for line in answer(sweep) if " beats " in line]
    assert [line.split(", ")[1] for line in lines] == ["TopK 64", "TopK 32"]
    rows = list_differences(find_contests(load_sweep(sweep).points))[1:]
    assert [row[0] for row in rows] == [
        "TopK 64, k 4, than TopK 32, k 4",
        "TopK 64, k 4, than BatchTopK 32, k 4",
        "TopK 32, k 4, than BatchTopK 32, k 4",
    ]


@pytest.mark.parametrize("setting", ["seed", "dataset.seed"])
def test_seeds_make_a_statement_on_the_architecture_and_their_spread_makes_it_unclear(sweep, setting):
    for number, nmse in enumerate((0.099, 0.101)):
        put_point(sweep, f"a{number}", "sae=topk", "k=4", f"{setting}={number}", sums=make_sums(nmse, 0.3, seed=1))
        sums = make_sums(nmse - 0.001, 0.3, seed=2)
        put_point(sweep, f"b{number}", "sae=batchtopk", "k=4", f"{setting}={number}", sums=sums)
    pair = answer(sweep)[0]
    assert pair.startswith("BatchTopK")
    assert "cannot be distinguished by NMSE" in pair, "the seeds of one architecture differ by more"
    counted = "2 initialisations" if setting == "seed" else "2 orders of the data"
    assert f". Over {counted} (few: the interval is wide); over these trained SAEs alone, " in pair
    assert "by 0.00" in pair.rpartition("alone, ")[2]


def test_the_same_two_saes_with_one_seed_differ_clearly(sweep):
    put_point(sweep, "a", "sae=topk", "k=4", sums=make_sums(0.099, 0.3, seed=1, noise=1e-4))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=make_sums(0.098, 0.3, seed=2, noise=1e-4))
    assert " beats " in answer(sweep)[0]


def test_points_on_other_text_without_sums_or_with_a_changed_file_are_not_compared(sweep):
    put_point(sweep, "a", "sae=topk", "k=4", sums=make_sums(0.1, 0.3, text="a"))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=make_sums(0.2, 0.3, text="b"))
    put_point(sweep, "c", "sae=jumprelu", "k=4")
    assert answer(sweep) == []
    put_point(sweep, "d", "sae=relu", "k=4", sums=make_sums(0.3, 0.3, text="a"))
    assert " beats ReLU" in answer(sweep)[0]
    file = sweep.folder / "d" / "documents.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert answer(sweep) == []


def test_sequences_are_named_as_the_unit_with_the_reason(sweep):
    put_point(sweep, "a", "sae=topk", "k=4", sums=make_sums(0.1, 0.3, unit="sequence", at_k=False))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=make_sums(0.2, 0.3, unit="sequence"))
    pair, method = answer(sweep)
    assert "at an L0 of" not in pair
    assert "over 80 sequences of the held-out text, because fewer than 20 documents are held out" in method


def test_the_page_has_the_answer_the_table_and_the_intervals(sweep):
    for number, seed in enumerate((0, 1)):
        put_point(sweep, f"a{seed}", "sae=topk", "k=4", f"seed={seed}", sums=make_sums(0.1, 0.3, seed=number))
    put_point(sweep, "b", "sae=batchtopk", "k=4", sums=(sums := make_sums(0.2, 0.3, seed=3)))
    put_point(sweep, "c", "sae=relu", "k=4")
    shown = Page(build_page("first", load_sweep(sweep).points, {}, 0))
    assert shown.find_id("answers").text.startswith("Of these two trained SAEs, TopK")
    assert "BatchTopK" in shown.find_id("differences").text
    topk, batchtopk, relu = shown.data["groups"]
    ends = describe_intervals(sums)["metrics"]["nmse"]
    assert batchtopk["intervals"]["nmse"] == pytest.approx([ends["low"], ends["high"]], rel=1e-4)
    assert shown.data["points"][2]["intervals"] == batchtopk["intervals"]
    assert relu["intervals"] == {}
    low, high = topk["intervals"]["nmse"]
    assert low < topk["mean"]["nmse"] < high
