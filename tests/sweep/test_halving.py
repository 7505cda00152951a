"""Halving without training: rungs, brackets, which points continue, and what a plan expects."""

import json
import random
from dataclasses import replace

import pytest

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.halving import (
    Brackets,
    count_kept,
    describe_brackets,
    find_bracket,
    find_halving_problems,
    list_ended,
    list_revived,
    list_rungs,
    read_rungs,
    shorten,
    write_value,
)
from sae_sweeps.sweep.plan import Plan
from sae_sweeps.sweep.point_state import PRUNED, write_state
from tests.commands import DONE_RESULTS
from tests.conftest import composed

ON = ("halving.enabled=true",)


def compose(*words):
    return composed(*ON, *words)


@pytest.fixture
def point(tmp_path):
    def make(name, *words):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True, exist_ok=True)
        return Point(compose(*words), folder)

    return make


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [65536, 98304, 163840]),  # of 327 680, in chunks of 32 768: an eighth, a quarter and a half, rounded up
        (["training.chunk_batches=1"], [40960, 81920, 163840]),
        (["training.chunk_batches=1", "halving.keep=0.25"], [40960, 163840]),
        (["halving.first=1"], [32768, 65536, 131072, 262144]),
        (["training.chunk_batches=1", "halving.first=300000"], [300032]),
        (["halving.first=300000"], []),
        (["training.chunk_batches=320"], []),
        (["training.tokens=327690", "training.chunk_batches=160"], [163840]),
    ],
)
def test_rungs_are_at_ends_of_chunks_before_the_end(words, expected):
    rungs = list_rungs(compose(*words))
    assert rungs == expected


def test_rungs_of_a_slow_reference():
    for keep in (0.2, 1 / 3, 0.5, 0.7, 0.9):
        config = compose("training.chunk_batches=4", f"halving.keep={keep}")
        expected, at = set(), 327_680 / 8
        while at < 327_680:
            expected.add(next(end for end in range(4096, 327_681, 4096) if end >= at - 1e-3))
            at /= keep
        assert list_rungs(config) == sorted(expected - {327_680})


def test_points_are_compared_with_those_that_differ_in_other_settings_only():
    first = find_bracket(compose())
    same = ("sae=jumprelu", "training.lr=1e-3", "training.betas=[0.8,0.9]", "training.warmup_steps=3")
    assert {find_bracket(compose(word)) for word in same} == {first}
    other = ("dict_size=6144", "k=8", "seed=1", "dataset.seed=1", "training.tokens=65536", "objective=nmse")
    others = [*other, "training.batch_size=512", "evaluation.tokens=100", "model.hook=blocks.1.hook_resid_pre"]
    assert len({first, *(find_bracket(compose(word)) for word in others)}) == 1 + len(others)
    within = "halving.within=[k]"
    assert find_bracket(compose(within, "dict_size=6144")) == find_bracket(compose(within, "seed=3"))


@pytest.mark.parametrize(
    ("count", "keep", "kept"), [(1, 0.1, 1), (2, 0.5, 1), (3, 0.5, 2), (9, 1 / 3, 3), (24, 0.5, 12), (10, 0.3, 3)]
)
def test_a_fraction_of_the_points_at_a_rung_continues_and_at_least_one(count, keep, kept):
    assert count_kept(count, keep) == kept


def report(points, rung, values):
    for one, value in zip(points, values, strict=True):
        write_value(one, rung, value)


@pytest.mark.parametrize("best", ["min", "max"])
def test_the_best_of_those_that_have_reached_a_rung_continue(point, best):
    objective = "objective=nmse" if best == "min" else "objective=ce_recovered_mean"
    generator = random.Random(0)
    values = [generator.random() for _ in range(9)]
    points = [point(str(number), objective) for number in range(9)]
    for known in range(1, 10):
        report(points[known - 1 : known], 65536, values[known - 1 : known])
        brackets = Brackets(points[0].folder.parent)
        ordered = sorted(range(known), key=lambda at: values[at], reverse=best == "max")
        expected = set(ordered[: -(-known // 2)])
        assert {at for at in range(known) if brackets.keeps(points[at], 65536)} == expected
        assert [brackets.rank(points[at], 65536) for at in ordered] == [(at + 1, known) for at in range(known)]


def test_a_point_whose_objective_has_no_value_is_the_worst(point):
    points = [point(name, "objective=nmse") for name in "abc"]
    report(points, 65536, [None, 0.9, 0.8])
    brackets = Brackets(points[0].folder.parent)
    assert [brackets.keeps(one, 65536) for one in points] == [False, True, True]


def test_points_of_other_brackets_and_damaged_files_do_not_count(point, caplog):
    points = [point("a"), point("b"), point("c", "k=8"), point("d")]
    report(points, 65536, [0.5, 0.4, 0.1, 0.2])
    (points[3].folder / "rungs.json").write_text("{")
    brackets = Brackets(points[0].folder.parent)
    assert [brackets.rank(one, 65536) for one in points[:3]] == [(2, 2), (1, 2), (1, 1)]
    assert "rungs.json is not JSON" in caplog.text


def test_a_file_of_another_point_does_not_count(point):
    first, second = point("a"), point("b")
    write_value(first, 65536, 0.5)
    (second.folder / "rungs.json").write_bytes((first.folder / "rungs.json").read_bytes())
    assert read_rungs(second.folder) is None
    assert read_rungs(first.folder).values == {65536: 0.5}


def test_values_of_another_bracket_are_replaced(point):
    one = point("a")
    write_value(one, 65536, 0.5)
    write_value(one, 98304, 0.4)
    assert read_rungs(one.folder).values == {65536: 0.5, 98304: 0.4}
    other = replace(one, config=compose("objective=nmse"))
    write_value(other, 65536, 0.3)
    assert (read_rungs(one.folder).values, read_rungs(one.folder).objective) == ({65536: 0.3}, "nmse")


def test_pruned_points_end_until_they_are_among_the_best(point):
    points = [point(name) for name in "abcd"]
    report(points[:2], 65536, [0.5, 0.4])
    write_state(points[0].folder, PRUNED, "place 2 of 2")
    assert [one.name for one in list_ended(points)] == ["a"]
    assert list_revived(points) == []
    report(points[2:], 65536, [0.6, 0.7])
    assert list_ended(points) == []
    assert [one.name for one in list_revived(points)] == ["a"]
    without = [replace(one, config=composed()) for one in points]
    assert list_ended(without) == list_revived(without) == []
    (points[0].folder / "results.json").write_text(DONE_RESULTS)
    assert list_revived(points) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["halving.keep=0"], "halving.keep=0.0: must be above 0"),
        (["halving.keep=1"], "halving.keep=1.0: must be above 0 and at most 0.95"),
        (["halving.first=0"], "halving.first=0: must be at least 1"),
        (["halving.within=[dict_size,size]"], "halving.within=size: is no setting"),
        (["halving.within=[training.lr]"], None),
        (["objective=[nmse,l0]"], "objective=nmse,l0: halving compares points by one metric"),
        (["objective=l0"], "objective=l0: halving compares points by one metric"),
        (["training.tokens=32768"], "training.tokens=32768: points are compared at ends of chunks, of 32,768"),
        (["halving.first=327680"], "training.tokens=327680: points are compared at ends of chunks"),
    ],
)
def test_settings_that_cannot_work_are_named(words, expected):
    found = find_halving_problems(compose(*words))
    assert all(isinstance(error, ConfigError) for error in found)
    assert [str(error)[: len(expected)] for error in found] == [expected] if expected else not found
    assert find_halving_problems(composed(*words)) == []


def test_the_plan_counts_what_is_expected_to_be_trained(point):
    words = [f"training.lr={rate}" for rate in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3)]
    points = [point(f"{size}-{word}", word, f"dict_size={size}") for size in (512, 1024) for word in words]
    expected = 65536 * 3 + 98304 * 1 + 163840 * 1 + 327680  # of six, 3, 2 and 1 continue
    assert sum(one.config.training.tokens for one in shorten(points)) == 2 * expected
    assert [one.folder for one in shorten(points)] == [one.folder for one in points]
    plan = Plan.from_points(points, None, is_local=True)
    assert (plan.sae_tokens, plan.model_tokens, plan.packs) == (2 * expected, 327680, [12])
    full = Plan.from_points([replace(one, config=replace(one.config, halving=composed().halving)) for one in points],
                            None, is_local=True)  # fmt: skip
    assert plan.hours < full.hours
    assert (plan.memory, plan.disk) == (full.memory, full.disk)
    assert plan.halving == ("2 x 6 → 3 → 2 → 1 points, compared at 65,536, 98,304, 163,840 activations",)
    assert full.halving == ()
    assert describe_brackets(points[:6]) == [plan.halving[0].removeprefix("2 x ")]


def test_the_largest_saes_of_a_bracket_are_planned_to_continue(point):
    points = [point(str(size), f"dict_size={size}", "halving.within=[k]") for size in (512, 2048, 1024)]
    assert [one.config.training.tokens for one in shorten(points)] == [65536, 327680, 98304]


def test_pruned_points_are_counted_apart_in_a_plan(point):
    points = [point("a"), point("b", "training.lr=1e-3")]
    report(points, 65536, [0.5, 0.4])
    write_state(points[0].folder, PRUNED, "place 2 of 2")
    plan = Plan.from_points(points, None, is_local=True)
    assert (plan.points, plan.done, plan.pruned, plan.packs) == (2, 0, 1, [1])


def test_the_state_of_a_pruned_point_is_read_with_its_reason(point):
    one = point("a")
    write_state(one.folder, PRUNED, "place 2 of 2 points by nmse at 64 activations")
    state = point_state.read_state(one.folder)
    assert (state.state, state.reason) == (PRUNED, "place 2 of 2 points by nmse at 64 activations")
    content = json.loads((one.folder / "state.json").read_text())
    assert content["state"] == "pruned"
