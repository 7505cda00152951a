"""Settings of synthetic activations: names of points, refusals, and what a language model has no part in."""

import math

import pytest

from sae_sweeps.config import from_json, point_name
from sae_sweeps.config.identity import select_result_settings, select_stream_settings
from sae_sweeps.config.synthetic import SyntheticConfig
from sae_sweeps.config.validation import find_problems
from tests.conftest import compose_choices, composed


def name(*words: str) -> str:
    return point_name(compose_choices("dataset=synthetic", *words))


def test_a_point_of_text_does_not_depend_on_what_is_planted():
    assert point_name(compose_choices()) == point_name(compose_choices("synthetic.features=7", "synthetic.seed=3"))


def test_a_synthetic_point_depends_on_what_is_planted_alone():
    assert len({name(), name("synthetic.features=200"), name("synthetic.seed=1"), name("dataset.seed=1")}) == 4
    assert name("model=gpt2-small", "dataset.seq_len=64", "model.batch_sequences=3") == name()


def test_coefficients_of_a_language_model_are_not_used():
    jumprelu = ["sae=jumprelu", "k=16", "dict_size=64"]
    assert name(*jumprelu, "model=gpt2-small") == name(*jumprelu)
    config = composed("dataset=synthetic", *jumprelu, "model=gpt2-small")
    assert not find_problems(config)
    assert config.model.sparsity_coefficients.values == {}


def test_a_configuration_has_no_model_and_survives_json():
    from dataclasses import asdict

    config = composed("dataset=synthetic", "model=gpt2-small", "dataset.seed=3")
    assert (config.model.name, config.model.hook, config.dataset.seed) == ("synthetic", "synthetic", 3)
    assert from_json(asdict(config)) == config
    old = asdict(composed())
    del old["synthetic"]  # as an earlier version wrote it
    assert from_json(old) == composed()
    assert select_result_settings(old) == select_result_settings(asdict(composed()))


def test_points_of_other_dictionaries_share_no_stream():
    streams = [select_stream_settings(composed("dataset=synthetic", *words)) for words in ([], ["synthetic.noise=0"])]
    assert streams[0] != streams[1]


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("dim", 0, "must be from 1 to 65536"),
        ("features", 0, "must be at least 1"),
        ("active", 0.0, "must be greater than 0"),
        ("active", math.nan, "must be greater than 0"),
        ("active", 129.0, "must be at most 128: no more can be active of 128 features"),
        ("exponent", -1.0, "must be at least 0"),
        ("exponent", math.inf, "must be at least 0"),
        ("magnitude", 0.0, "must be from 1e-06 to 1e+06"),
        ("noise", math.nan, "must be from 0 to 1e+06"),
        ("noise", -0.1, "must be from 0 to 1e+06"),
        ("correlation", 1.0, "must be at least 0 and below 1"),
        ("correlation_rank", 0, "must be from 1 to 1024"),
        ("depth", -1, "must be at least 0"),
        ("branching", 0, "must be at least 1"),
        ("child_probability", 0.0, "must be above 0 and at most 1"),
        ("directions", "parallel", "must be one of random, orthogonal"),
        ("seed", -1, "must be at least 0"),
        ("features", 10**9, "more than 4 GiB"),
    ],
)
def test_a_value_that_cannot_work_is_refused_in_one_line(setting, value, part):
    config = composed("dataset=synthetic", "dict_size=64", "k=4")
    setattr(config.synthetic, setting, value)
    (error,) = find_problems(config)
    assert error.setting == f"synthetic.{setting}"
    assert part in str(error)
    assert "\n" not in str(error)


def test_a_hierarchy_lowers_how_many_features_can_be_active():
    settings = SyntheticConfig(features=21, depth=2, branching=4, child_probability=0.5, active=7.0)
    assert settings.levels == [1, 4, 16]
    assert settings.most_active == 1 + 2 + 4
    assert not settings.find_problems()
    (problem,) = SyntheticConfig(**{**vars(settings), "active": 7.1}).find_problems()
    assert "at most 7" in problem.problem


@pytest.mark.parametrize(
    ("features", "depth", "branching", "levels"),
    [
        (5, 0, 4, [5]),
        (1, 3, 4, [1]),
        (3, 1, 4, [1, 2]),
        (22, 2, 4, [2, 8, 12]),
        (6, 10**9, 1, [1] * 6),
        (6, 10**9, 10**9, [1, 5]),
    ],
)
def test_levels_hold_all_features(features, depth, branching, levels):
    assert SyntheticConfig(features=features, depth=depth, branching=branching).levels == levels


def test_a_study_that_needs_a_language_model_cannot_follow():
    config = composed("dataset=synthetic", "then=[stitch,match,report]")
    (error,) = find_problems(config)
    assert "stitch needs a language model" in str(error)
    assert not find_problems(composed("dataset=synthetic", "then=[match,meta_sizes,evaluate,report]"))
