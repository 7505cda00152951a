"""Tables of points: in Markdown and on the terminal."""

import csv
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from sae_sweeps.evaluation import metrics
from sae_sweeps.report import status
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.report.markdown import format_markdown_table
from sae_sweeps.report.studies import histogram
from sae_sweeps.report.terminal import points_table, seeds_table, sparkline
from sae_sweeps.runtime.console import console
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points, group_by_seed
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, QUEUED, State
from sae_sweeps.sweep.sweep_state import SweepStates
from tests.report.made import compared, config, put, some_metrics

COLUMNS = {
    "nmse": "NMSE",
    "l0": "L0",
    "dead_fraction": "dead",
    "ce_degradation": "CE +nats",
    "ce_recovered_mean": "CE rec. (mean)",
}
TITLES = ["point", *COLUMNS.values(), "MSE", "own tok/s"]


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    """Show these metrics alone: a new metric changes none of the tables below."""
    monkeypatch.setattr(metrics, "COLUMNS", COLUMNS)


def test_the_tables_have_these_metrics():
    assert COLUMNS.items() <= metrics.COLUMNS.items()


def numbers(nmse: float, l0: float, dead: float, ce: float, recovered: float) -> dict[str, float]:
    return {
        "nmse": nmse, "l0": l0, "dead_fraction": dead, "ce_degradation": ce, "ce_recovered_mean": recovered
    }  # fmt: skip


def rows_of(table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_markdown_has_the_best_in_bold_and_the_lowest_nmse_first():
    points = [
        compared("dict_size=20", **numbers(0.5, 2.0, 0.25, 0.125, 0.5)),
        compared("dict_size=30", **numbers(0.25, 3.0, 0.5, 0.25, 0.75)),
        compared("k=8", **numbers(0.75, 8.0, 0.0, 0.0, 1.0)),
    ]
    assert format_markdown_table(group_by_seed(points)).splitlines() == [
        "| SAE | NMSE | L0 | dead latents | CE degradation (nats) | CE recovered (mean) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| BatchTopK 30, k 32 | **0.2500** | 3.0 | 50.0% | 0.2500 | **0.7500** |",
        "| BatchTopK 20, k 32 | 0.5000 | 2.0 | **25.0%** | **0.1250** | 0.5000 |",
        "| BatchTopK 3072, k 8 | 0.7500 | 8.0 | 0.0% | 0.0000 | 1.0000 |",
    ]


def test_markdown_has_mean_and_spread_over_seeds_and_unfinished_points_last():
    points = [
        compared("seed=0", **numbers(0.25, 2.0, 0.0, 0.0, 1.0)),
        compared("seed=1", **numbers(0.75, 4.0, 0.0, 0.0, 1.0)),
        compared("seed=2", state=State(FAILED, "no space")),
        compared("k=5"),
        compared("k=6", state=State(INTERRUPTED)),
    ]
    _, _, *rows = format_markdown_table(group_by_seed(points)).splitlines()
    assert rows == [
        "| BatchTopK 3072, k 32 (3 seeds) (failed) | 0.5000 ± 0.3536 | 3.0 ± 1.4 | 0.0% ± 0.0% | 0.0000 ± 0.0000 "
        "| 1.0000 ± 0.0000 |",
        "| BatchTopK 3072, k 5 (waiting) | – | – | – | – | – |",  # noqa: RUF001
        "| BatchTopK 3072, k 6 (interrupted) | – | – | – | – | – |",  # noqa: RUF001
    ]


def test_markdown_escapes_bars_in_names():
    points = [compared(sweep=name, **numbers(0.25, 2.0, 0.0, 0.0, 1.0)) for name in ("a|b", "c")]
    rows = format_markdown_table(group_by_seed(points)).splitlines()
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}


def test_the_table_has_finished_points_by_nmse_with_a_star_at_each_best():
    points = [
        compared("dict_size=20", name="two", **numbers(0.5, 2.0, 0.25, 0.125, 0.5)),
        compared("dict_size=90", name="failed", state=State(FAILED)),
        compared("dict_size=30", name="three", **numbers(0.25, 3.0, 0.5, 0.25, 0.75)),
    ]
    table = points_table("first", points)
    assert [column.header for column in table.columns] == ["point", "dict_size", *TITLES[1:]]
    assert [[str(cell).strip() for cell in row] for row in rows_of(table)] == [
        ["three", "30", "0.2500*", "3.0", "50.0%", "0.2500", "0.7500*", "", "52,765"],
        ["two", "20", "0.5000", "2.0", "25.0%*", "0.1250*", "0.5000", "", "52,765"],
    ]


def test_what_was_swept_is_a_column_of_both_tables_and_the_rest_makes_room(monkeypatch):
    words = ["training.lr=0.001", "training.lr=0.002", "model.hook=blocks.2.hook_resid_pre", "seed=1"]
    points = [compared(word, name=word, **some_metrics(at)) for at, word in enumerate(words)]
    points.append(compared("evaluation.tokens=64", name="waiting"))
    table = points_table("first", points)
    titles = ["point", "seed", "hook", "lr", "tokens", *COLUMNS.values()]
    assert [column.header for column in table.columns] == titles
    assert next(row[1:5] for row in rows_of(table) if row[0] == words[1]) == [
        "0", "blocks.3.hook_resid_pre", "0.002", "32768"
    ]  # fmt: skip
    monkeypatch.setattr(console, "width", 500)
    assert [column.header for column in points_table("first", points).columns] == [*titles, "MSE", "own tok/s"]


def test_the_table_of_states_has_what_was_swept_and_no_empty_column():
    configs = {word: asdict(config(word)) for word in ("training.lr=0.001", "training.lr=0.002")}
    content = {"points": {name: {"config": one} for name, one in configs.items()}}
    seen = SweepStates({name: State(INTERRUPTED, "Ctrl-C", step=3) for name in configs}, content)
    table = status.table(Sweep(Path("outputs/first")), seen)
    assert [column.header for column in table.columns] == ["point", "lr", "state", "steps"]
    assert [row[1] for row in rows_of(table)] == ["0.001", "0.002"]
    seen = SweepStates({name: State(QUEUED, "Priority", job="7_1") for name in configs}, content)
    assert [column.header for column in status.table(Sweep(Path("outputs/first")), seen).columns] == [
        *("point", "lr", "state", "job", "")
    ]


def test_results_csv_has_every_swept_setting_once(tmp_path):
    sweep = Sweep(tmp_path / "s")
    for at, word in enumerate(("training.lr=0.001", "training.lr=0.002", "training.lr=0.004 k=16")):
        put(sweep, word, *word.split(), metrics=some_metrics(at))
    put(sweep, "waiting", "evaluation.tokens=64")
    loaded = load_sweep(sweep)
    loaded.write_results_csv()
    rows = list(csv.DictReader(loaded.results_csv.read_text().splitlines()))
    assert [(row["training.lr"], row["evaluation.tokens"]) for row in rows] == [
        ("0.001", "32768"), ("0.002", "32768"), ("0.004", "32768")
    ]  # fmt: skip
    assert "sae.architecture" not in rows[0]


def test_a_single_point_has_no_stars():
    (row,) = rows_of(points_table("first", [compared(name="one", **some_metrics(0))]))
    assert not any("*" in cell for cell in row)


def test_the_table_of_seeds_has_its_own_stars():
    points = [
        compared(f"dict_size={size}", f"seed={seed}", name=f"{size}-{seed}", **numbers(nmse, size, 0.0, 0.0, 1.0))
        for size, seed, nmse in ((2, 0, 0.5), (2, 1, 0.7), (3, 0, 0.3), (3, 1, 0.5), (4, 0, 0.1))
    ]
    points += [compared(f"dict_size={size}", f"seed={seed}", state=State(FAILED)) for size, seed in ((3, 2), (4, 1))]
    assert [row[0] for row in rows_of(points_table("first", points))] == ["4-0", "3-0", "2-0", "3-1", "2-1"]
    rows = [[str(cell).strip() for cell in row] for row in rows_of(seeds_table("first", points))]
    assert [[*row[:3], row[-1]] for row in rows] == [
        ["BatchTopK 3, k 32", "0.4000 ± 0.1414*", "3.0 ± 0.0", "2"],
        ["BatchTopK 2, k 32", "0.6000 ± 0.1414", "2.0 ± 0.0", "2"],
    ]
    assert seeds_table("first", points[4:]) is None


def test_brackets_in_names_are_no_markup():
    points = [compared(f"seed={seed}", sweep="[red]x", name=f"[bold]{seed}", **some_metrics(seed)) for seed in (0, 1)]
    with console.capture() as captured:
        console.print(points_table("[red]x", points), seeds_table("[red]x", points))
    text = captured.get()
    assert text.count("sweep [red]x") == 2
    assert "[bold]0" in text
    assert "[bold]1" in text


def test_curves_share_a_logarithmic_scale(tmp_path):
    sweep = Sweep(tmp_path / "curves")
    falls = [{"step": at, "tokens": at, "mse": 10.0 ** (2 - at / 9)} for at in range(0, 19)]
    put(sweep, "falls", "k=2", metrics=some_metrics(0, nmse=0.1), curve=falls)
    flat = [{"step": at, "tokens": at, "mse": 10.0} for at in range(3)]
    put(sweep, "flat", "k=3", metrics=some_metrics(1, nmse=0.2), curve=flat)
    points = collect_points(sweep, dict.fromkeys(("falls", "flat"), State(DONE)))
    curves = {row[0]: row[7] for row in rows_of(points_table("curves", points))}
    assert curves["falls"] == "█▇▆▆▅▄▃▃▂▁"
    assert curves["flat"] in {"▄" * 10, "▅" * 10}


def test_non_finite_values_of_a_curve_are_left_out(tmp_path):
    sweep = Sweep(tmp_path / "jumps")
    curve = [{"step": at, "tokens": at, "mse": mse} for at, mse in enumerate((math.inf, 100.0, math.nan, 1.0))]
    put(sweep, "jumps", metrics=some_metrics(0), curve=curve)
    (row,) = rows_of(points_table("jumps", collect_points(sweep, {"jumps": State(DONE)})))
    assert row[6] == "█████▁▁▁▁▁"


def test_a_constant_curve_is_flat_and_a_missing_one_empty(tmp_path):
    sweep = Sweep(tmp_path / "one")
    put(sweep, "flat", metrics=some_metrics(0), curve=[{"step": 1, "tokens": 1, "mse": 0.25}])
    points = collect_points(sweep, {"flat": State(DONE)})
    assert rows_of(points_table("one", points))[0][6] == "▁" * 10
    assert rows_of(points_table("none", [compared(**some_metrics(0))]))[0][6] == ""
    assert rows_of(points_table("nothing", [])) == []


@pytest.mark.parametrize(
    ("values", "low", "high", "drawn"),
    [
        ([1, 10, 100], 1, 100, "▁▅█"),
        ([100, 1], 1, 100, "█▁"),
        ([3, 3, 3], 3, 3, "▁▁▁"),
        ([10], 1, 100, "▅"),
        ([], 1, 100, ""),
        ([0, 0], 0, 0, "▁▁"),
    ],
)
def test_a_sparkline_spans_the_lowest_to_the_highest_bar(values, low, high, drawn):
    assert sparkline(values, low, high) == drawn


def test_cosines_rounded_above_1_are_counted():
    found = histogram(np.array([1.0000001, 1.0, 0.99, -0.2]))
    assert sum(found["counts"]) == 4
    assert found["counts"][-1] == 3
    assert found["counts"][0] == 1
    assert (found["first"], found["first"] + 60 * found["width"]) == (-0.2, pytest.approx(1.0))
    assert sum(histogram(np.array([]))["counts"]) == 0
