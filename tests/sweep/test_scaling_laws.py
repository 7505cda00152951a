"""The laws of a sweep: which points belong to one, what is predicted without them, and the file."""

import math

import pytest

from sae_sweeps.report.scaling import describe_law as describe_in_words
from sae_sweeps.studies.scaling import ScalingError, fit_law
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.scaling_laws import FILE, describe_law, group_for_laws, read_laws, write_laws
from tests.report.made import compared

SIZES = (384, 768, 1536, 3072, 6144)


def bend(size: int, k: int = 32) -> float:
    return 0.4 * (size / 1000) ** -0.6 * (k / 32) ** -0.3 + 0.06 + 1e-4 * math.sin(size)


def made(*words: str, sizes=SIZES, k=32, **more):
    return [compared(f"dict_size={size}", f"k={k}", *words, nmse=bend(size, k), **more) for size in sizes]


def test_points_of_one_law_differ_only_in_size_k_tokens_and_seeds():
    points = [
        *made("sae=topk"),
        *made("sae=topk", k=16),
        *made("sae=topk", "seed=1", "dataset.seed=3"),
        *made("sae=topk", "training.tokens=100000"),
        *made("sae=topk", "training.lr=0.1"),
        *made("sae=jumprelu"),
        *made("sae=jumprelu", k=16),
        *made("sae=jumprelu", "sae.target_l0=20"),
        compared("sae=topk", "dict_size=99"),  # not done
    ]
    groups = group_for_laws(points)
    assert [len(group.points) for group in groups] == [20, 5, 10, 5]
    topk, fast, jumprelu, target = groups
    assert topk.label.startswith("TopK, training.lr ")
    assert fast.label == "TopK, training.lr 0.1"
    assert target.label == "JumpReLU, sae.target_l0 20.0"
    assert jumprelu.label.startswith("JumpReLU")
    assert len({group.key for group in groups}) == 4
    assert {(one.dict_size, one.k, one.tokens) for one in topk.trained if one.k == 16} == {
        (size, 16, topk.points[0].config["training"]["tokens"]) for size in SIZES
    }


def test_the_nmse_at_k_is_used_if_all_points_have_it():
    at_k = [compared(f"dict_size={size}", nmse=1.0, nmse_at_k=bend(size)) for size in SIZES]
    (group,) = group_for_laws(at_k)
    assert group.metric == "nmse_at_k"
    assert [one.nmse for one in group.trained] == [bend(size) for size in SIZES]
    (group,) = group_for_laws([*at_k, compared("dict_size=99", nmse=0.3)])
    assert (group.metric, group.trained[0].nmse, group.trained[-1].nmse) == ("nmse", 1.0, 0.3)


def test_predicted_points_are_not_used_and_their_truth_is_shown():
    (before,), (after,) = (group_for_laws(made(sizes=sizes)) for sizes in (SIZES[:-1], SIZES))
    expected, found = (describe_law(group, [6144, 9999]) for group in (before, after))
    alone = fit_law(before.trained).predict(6144, 32, before.trained[0].tokens)
    assert [one["dict_size"] for one in found["predictions"]] == [6144, 9999]
    assert {name: found["predictions"][0][name] for name in ("value", "low", "high")} == alone._asdict()
    assert found["predictions"][0]["nmse"] == pytest.approx(bend(6144))
    assert found["predictions"][0]["miss"] == pytest.approx(alone.value / bend(6144) - 1)
    assert expected["predictions"][0] == {**found["predictions"][0], "nmse": None, "miss": None}
    assert found["predictions"][1] == expected["predictions"][1]
    assert {name: found[name] for name in ("points", "parameters", "by_k")} == {
        name: expected[name] for name in ("points", "parameters", "by_k")
    }


def test_the_largest_size_is_predicted_at_each_k_and_all_points_are_used():
    (group,) = group_for_laws([*made(), *made(k=16), *made("seed=1")])
    law = describe_law(group)
    assert law["predictions"] == []
    assert [(one["dict_size"], one["k"]) for one in law["held_out"]] == [(6144, 16), (6144, 32)]
    assert all(abs(one["miss"]) < 0.03 and one["low"] < one["nmse"] < one["high"] for one in law["held_out"])
    assert len(law["points"]) == 10  # the two seeds are one
    assert [one["k"] for one in law["by_k"]] == [16, 32]
    curve = law["by_k"][0]["curve"]
    assert (curve["dict_size"][0], curve["dict_size"][-1]) == (pytest.approx(384), pytest.approx(4 * 6144))
    assert all(
        low <= value <= high for low, value, high in zip(curve["low"], curve["value"], curve["high"], strict=True)
    )


def test_what_cannot_be_predicted_is_a_note():
    (group,) = group_for_laws(made(sizes=SIZES[:3]))
    law = describe_law(group, tokens=[5])
    assert (law["held_out"], law["predictions"]) == ([], [])
    assert "cannot be predicted from the others: a law of 2 parameters with error bars takes 3 SAEs" in " ".join(
        law["notes"]
    )
    assert "Other tokens than" in " ".join(law["notes"])
    with pytest.raises(ScalingError, match="several sizes"):
        describe_law(*group_for_laws(made(sizes=SIZES[:1])))


def test_an_exponent_that_may_be_0_is_not_called_a_fall():
    (group,) = group_for_laws([compared(f"dict_size={size}", nmse=0.1 + 0.01 * (size == 768)) for size in SIZES])
    assert describe_in_words(describe_law(group))[0].startswith(
        "BatchTopK, k 32: it is not clear from these points that NMSE falls with the number F of latents, as F^-b, b = "
    )
    (group,) = group_for_laws(made())
    assert describe_in_words(describe_law(group))[0].startswith("BatchTopK, k 32: NMSE falls with the number F")


def test_the_file_has_the_laws_and_gets_what_is_measured_later(tmp_path):
    sweep = Sweep(tmp_path / "first")
    sweep.folder.mkdir()
    points = [one.__class__(sweep, *list(vars(one).values())[1:]) for one in made()]
    (group,) = group_for_laws(points[:-1])
    law = describe_law(group, [6144])
    assert list(read_laws(sweep, points)) == []
    write_laws(sweep, [law], {"TopK": "why"})
    assert list(read_laws(sweep, points[:-1])) == [law]
    (now,) = read_laws(sweep, points)
    assert now["predictions"][0]["nmse"] == pytest.approx(bend(6144))
    assert {**now, "predictions": law["predictions"]} == law
    (sweep.folder / FILE).write_text("{}")
    assert list(read_laws(sweep, points)) == []
