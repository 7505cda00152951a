"""Comparison of points: seed groups, distinct labels, and the best value of a metric."""

import math

import pytest

from sae_sweeps.config.differences import find_varying
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.sweep.comparison import distinguish_data, group_by_seed, is_best
from sae_sweeps.sweep.point_state import FAILED, State
from tests.conftest import composed
from tests.report.made import compared

JUMPRELU = ("sae=jumprelu", "k=32", "+model.sparsity_coefficients.values={32: 0.00105}")


def labels(*points) -> list[str]:
    return [group.label for group in group_by_seed(points)]


def test_seeds_are_one_group_with_mean_and_sample_standard_deviation():
    values = [0.25, 0.5, 1.5]
    group, other = group_by_seed(
        [
            *(compared(f"seed={seed}", nmse=value, l0=7.0) for seed, value in enumerate(values)),
            compared("seed=0", "k=16", nmse=0.3, l0=5.0),
        ]
    )
    assert [point.config["seed"] for point in group.points] == [0, 1, 2]
    mean = sum(values) / 3
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert group.mean == pytest.approx({"nmse": mean, "l0": 7.0})
    assert group.spread == pytest.approx({"nmse": spread, "l0": 0.0})
    assert (other.mean, other.spread) == ({"nmse": 0.3, "l0": 5.0}, {"nmse": None, "l0": None})


def test_a_failed_seed_is_in_the_group_but_not_in_its_mean():
    failed = compared("seed=1", state=State(FAILED, "the loss is nan"))
    (group,) = group_by_seed([compared("seed=0", nmse=0.2), failed, compared("seed=2", nmse=0.4)])
    assert len(group.points) == 3
    assert group.mean == pytest.approx({"nmse": 0.3})
    assert group.spread == pytest.approx({"nmse": 0.2 / math.sqrt(2)})
    (alone,) = group_by_seed([compared("seed=0", nmse=0.2), failed])
    assert (alone.mean, alone.spread) == ({"nmse": 0.2}, {"nmse": None})
    (none,) = group_by_seed([failed])
    assert (none.mean, none.spread) == ({}, {})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_seed_without_a_finite_value_leaves_no_spread(value):
    (group,) = group_by_seed(
        [compared("seed=0", nmse=0.2, ce_recovered_mean=value), compared("seed=1", nmse=0.4, l0=1.0)]
    )
    assert group.spread["ce_recovered_mean"] is None
    (group,) = group_by_seed([compared(f"seed={seed}", nmse=one) for seed, one in enumerate((0.2, value))])
    assert METRICS["nmse"].text(group.mean["nmse"]) == "–"  # noqa: RUF001
    assert group.spread["nmse"] is None


def test_groups_are_in_the_order_of_their_first_points():
    points = [compared("k=16", "seed=1"), compared("k=64"), compared("k=16", "seed=0")]
    assert labels(*points) == ["BatchTopK 3072, k 16", "BatchTopK 3072, k 64"]


def test_settings_that_do_not_affect_results_do_not_separate_points():
    assert (
        len(group_by_seed([compared(), compared("seed=1", "training.log_every=7", "tracking=off", "device=cpu")])) == 1
    )


def test_a_hook_is_named_by_its_layer():
    points = [compared(f"model.hook=blocks.{place}") for place in ("1.hook_resid_pre", "12.hook_attn_out")]
    found = group_by_seed(points)
    assert [group.label for group in found] == [
        "BatchTopK 3072, k 32, layer 1 resid_pre",
        "BatchTopK 3072, k 32, layer 12 attn_out",
    ]
    assert [group.settings for group in found] == ["layer 1 resid_pre", "layer 12 attn_out"]


@pytest.mark.parametrize(
    ("described", "starts"),
    [
        (["m, blocks.1.a, on t", "m, blocks.2.a, on t"], ["At blocks.1.a", "At blocks.2.a"]),
        (["m, h, on t", "n, h, on t"], ["On m", "On n"]),
        (["m, h, on t", "m, h, on u, v"], ["On t", "On u, v"]),
        (["m, h, on t", "m, g, on u"], ["On h, on t", "On g, on u"]),
    ],
)
def test_sentences_on_different_data_start_with_what_differs(described, starts):
    assert [*distinguish_data(described).values()] == starts


def test_a_label_names_architecture_size_k_and_the_settings_that_differ():
    assert labels(compared("sae=topk"), compared("sae=jumprelu", "dict_size=6144")) == [
        "TopK 3072, k 32",
        "JumpReLU 6144, k 32",
    ]
    assert labels(compared("training.lr=0.001"), compared("training.lr=0.002", "training.warmup_steps=9")) == [
        f"BatchTopK 3072, k 32, training.lr 0.001, training.warmup_steps {composed().training.warmup_steps}",
        "BatchTopK 3072, k 32, training.lr 0.002, training.warmup_steps 9",
    ]


def test_a_label_omits_settings_that_its_architecture_lacks():
    batchtopk = [compared(f"sae.threshold_momentum={value}") for value in (0.8, 0.9)]
    found = labels(compared("sae=topk"), *batchtopk)
    assert found[0] == "TopK 3072, k 32"
    assert found[1:] == [f"BatchTopK 3072, k 32, sae.threshold_momentum {value}" for value in (0.8, 0.9)]


def test_the_precision_changes_neither_names_nor_labels():
    points = [compared(f"training.precision={precision}") for precision in ("auto", "float32", "bfloat16")]
    assert len({point.name for point in points}) == 1
    assert find_varying([point.config for point in points]) == []


def test_a_coefficient_is_in_the_label_unless_k_determines_it():
    assert labels(compared(*JUMPRELU), compared(*JUMPRELU, "sae.sparsity_coefficient=0.5")) == [
        "JumpReLU 3072, k 32, sae.sparsity_coefficient 0.00105",
        "JumpReLU 3072, k 32, sae.sparsity_coefficient 0.5",
    ]
    assert labels(*(compared("sae=jumprelu", f"k={k}") for k in (16, 32))) == [
        "JumpReLU 3072, k 16",
        "JumpReLU 3072, k 32",
    ]


def test_points_of_several_sweeps_are_never_one_group():
    same = [compared(f"seed={seed}", sweep=sweep, nmse=0.1) for sweep in ("one", "two") for seed in (0, 1)]
    groups = group_by_seed(same)
    assert [group.label for group in groups] == ["one: BatchTopK 3072, k 32", "two: BatchTopK 3072, k 32"]
    assert [{point.sweep.name for point in group.points} for group in groups] == [{"one"}, {"two"}]
    assert [len(group.points) for group in groups] == [2, 2]


def test_no_two_groups_have_the_same_label():
    words = [f"training.{one}" for one in ("lr=0.001", "batch_size=512", "betas=[0.5,0.9]", "initial_bias=zero")]
    words += ["sae.normalize_input=false", "evaluation.tokens=99", "dataset.seq_len=64", "model.dtype=bfloat16", "k=2"]
    found = labels(compared(), *map(compared, words))
    assert len(set(found)) == len(words) + 1


def test_varying_settings_affect_results_and_differ_between_points():
    topk, jumprelu = compared("sae=topk", "k=3", "device=cpu"), compared("sae=jumprelu", "training.lr=1", "k=4")
    assert set(find_varying([topk.config, jumprelu.config])) == {"sae.architecture", "k", "training.lr"}
    assert find_varying([compared("seed=1").config]) == []
    assert find_varying([]) == []


def best_of(name: str, *points) -> list[float]:
    """The means of a metric that are the best of their contest."""
    groups = group_by_seed(points)
    return [group.mean[name] for group in groups if is_best(group, groups, METRICS[name])]


@pytest.mark.parametrize(("name", "expected"), [("nmse", [0.1]), ("ce_recovered_mean", [0.4]), ("l0", [])])
def test_the_best_is_the_lowest_or_the_highest_or_neither(name, expected):
    points = [compared(f"dict_size={size}", **{name: value}) for size, value in ((20, 0.4), (30, 0.1), (40, 0.2))]
    assert best_of(name, *points, compared("dict_size=50")) == expected


@pytest.mark.parametrize(("name", "expected"), [("nmse", [0.25]), ("ce_recovered_mean", [0.5])])
def test_a_value_that_is_not_finite_is_never_the_best(name, expected):
    sizes = ((20, math.nan), (30, 0.25), (40, 0.5), (50, math.inf))
    assert best_of(name, *(compared(f"dict_size={size}", **{name: value}) for size, value in sizes)) == expected


def test_there_is_no_best_of_one_point_of_equal_values_or_of_nothing():
    assert best_of("nmse", *(compared(f"dict_size={size}", nmse=0.1) for size in (20, 30))) == []
    assert best_of("nmse", compared("dict_size=20", nmse=0.1), compared("dict_size=30")) == []
    assert best_of("nmse", compared(nmse=0.1)) == []
    assert best_of("nmse") == []


def test_only_points_of_equal_k_model_hook_and_text_have_a_best():
    points = [compared(f"k={k}", f"dict_size={size}", nmse=size / k / 100) for k in (2, 4) for size in (20, 30)]
    assert best_of("nmse", *points) == [0.1, 0.05]
    assert best_of("nmse", compared("k=2", nmse=0.1), compared("k=4", nmse=0.2)) == []
    for words in ("model.hook=blocks.4.hook_resid_pre", "model.name=other", "dataset.name=other"):
        assert best_of("nmse", compared(nmse=0.1), compared(words, nmse=0.2)) == []


def test_a_point_worse_than_the_mean_is_not_the_best_and_no_rival():
    diverged = compared("dict_size=30", nmse=1.0, dead_fraction=0.0)
    first, second = (compared(f"dict_size={size}", nmse=size / 100, dead_fraction=0.5) for size in (40, 50))
    assert best_of("dead_fraction", diverged, first) == []
    assert best_of("nmse", diverged, first) == []
    assert best_of("nmse", diverged, first, second) == [0.4]
