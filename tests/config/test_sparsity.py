"""The settings that a listed coefficient was found with come with it, unless the command gives others."""

import json
from dataclasses import asdict

import pytest

from sae_sweeps.config.conversion import from_json
from sae_sweeps.config.differences import find_swept, find_varying
from sae_sweeps.config.saes import LISTED_SETTINGS, JumpReLUConfig
from sae_sweeps.config.sparsity import explain_sparsity, uses_listed
from sae_sweeps.config.validation import find_problems
from tests.config.test_config import LISTED, PAPER_JUMPRELU, compose_name
from tests.conftest import EARLIER_QUICK, composed

OURS = {name: getattr(JumpReLUConfig, name) for name in LISTED_SETTINGS}


def chosen(*overrides: str) -> dict:
    config = composed(*overrides)
    assert find_problems(config) == []
    return {name: getattr(config.sae, name) for name in LISTED_SETTINGS}


@pytest.mark.parametrize(
    "others",
    [
        ["k=33"],
        ["sae.target_l0=20"],
        ["sae.target_l0=${k}"],
        ["sae.sparsity_coefficient=0.0018"],
    ],
)
def test_settings_come_with_a_listed_coefficient_and_with_nothing_else(others):
    assert chosen(*LISTED) == PAPER_JUMPRELU
    assert chosen(*LISTED, *others) == OURS
    assert not uses_listed(composed(*LISTED, *others))


def test_settings_that_the_command_gives_hold():
    assert chosen(*LISTED, "sae.penalty_window=both") == {**PAPER_JUMPRELU, "penalty_window": "both"}
    assert chosen(*LISTED, "sae.bandwidth=0.01") == {**PAPER_JUMPRELU, "bandwidth": 0.01}
    for start in ("sae.absolute_threshold=null", "sae.initial_threshold=2"):
        assert chosen(*LISTED, start) == {**PAPER_JUMPRELU, "absolute_threshold": None}
    upper = chosen("sae=jumprelu", "sae.penalty_window=upper", "sae.absolute_threshold=0.5")
    assert upper == {**OURS, "penalty_window": "upper", "absolute_threshold": 0.5}


def test_a_list_without_settings_is_used_with_the_defaults():
    assert chosen("sae=jumprelu", "+model.sparsity_coefficients.values={32: 0.1}") == OURS
    some = "+model.sparsity_coefficients={values: {32: 0.1}, bandwidth: 0.02}"
    assert chosen("sae=jumprelu", some) == {**OURS, "bandwidth": 0.02}


def test_the_log_shows_what_is_in_effect_and_what_a_coefficient_was_found_with():
    line = explain_sparsity(composed(*LISTED))
    assert line == (
        "sae.sparsity_coefficient=0.0018, which the model's configuration lists for k=32, with "
        "sae.penalty_window=upper, sae.threshold_parameter=log, sae.absolute_threshold=1, sae.bandwidth=0.001"
    )
    other = explain_sparsity(composed(*LISTED, "sae.bandwidth=0.01", "sae.absolute_threshold=null"))
    assert "sae.threshold_parameter=log, sae.bandwidth=0.01; it was found with sae.absolute_threshold=1, " in other
    assert other.endswith("sae.bandwidth=0.001, so check the L0 of the trained SAE")
    elsewhere = explain_sparsity(composed(*LISTED, "model.hook=blocks.1.hook_resid_pre", "sae.bandwidth=0.01"))
    where = "for gpt2 at blocks.8.hook_resid_pre"
    assert elsewhere.endswith(f"; it was found {where} with sae.bandwidth=0.001, so check the L0 of the trained SAE")
    ours = explain_sparsity(composed("sae=jumprelu"))
    assert ours.endswith(", with sae.penalty_window=both, sae.threshold_parameter=plain, sae.bandwidth=0.001")
    assert "penalty_window" not in explain_sparsity(composed("sae=relu"))


@pytest.mark.parametrize(
    ("words", "setting", "problem"),
    [
        (["sae.penalty_window=lower"], "penalty_window", "must be both or upper"),
        (["sae.threshold_parameter=sqrt"], "threshold_parameter", "must be plain or log"),
        (["sae.absolute_threshold=0"], "absolute_threshold", "must be greater than 0"),
        (["sae.absolute_threshold=nan"], "absolute_threshold", "must be greater than 0"),
        (["sae.bandwidth=0"], "bandwidth", "must be greater than 0"),
        (
            ["sae.absolute_threshold=1", "sae.initial_threshold=2"],
            "absolute_threshold",
            "cannot be combined with sae.initial_threshold=2",
        ),
        (["sae.absolute_threshold=1", "sae.target_l0=20"], "absolute_threshold", "with sae.target_l0=20"),
    ],
)
def test_settings_that_cannot_work_give_one_error(words, setting, problem):
    (found,) = find_problems(composed("sae=jumprelu", *words))
    assert found.setting == f"sae.{setting}"
    assert problem in found.problem


def test_points_keep_the_names_that_they_had_without_these_settings():
    assert compose_name(*EARLIER_QUICK).endswith("-fc05b429")
    assert compose_name(*EARLIER_QUICK, "sae=jumprelu").endswith("-1cf80f10")
    assert compose_name(*EARLIER_QUICK, "sae=topk", "dict_size=6144").endswith("-5518c975")
    jumprelu = composed(*EARLIER_QUICK, "sae=jumprelu")
    before = asdict(jumprelu)
    new = ("dead_counts_batch", "normalize_before_update", "base_lr", "initial_weights", "dead_threshold_factor")
    for group, names in (("sae", LISTED_SETTINGS[:3]), ("training", new)):
        for name in names:
            del before[group][name]
    assert from_json(json.loads(json.dumps(before))) == jumprelu
    assert find_varying([before, asdict(jumprelu)]) == []


def test_base_lr_names_a_point_only_without_a_learning_rate():
    assert compose_name("training.base_lr=1e-3") == compose_name()
    names = {compose_name("training.lr=null", f"training.base_lr={rate}") for rate in (2e-4, 1e-3)}
    assert len(names | {compose_name()}) == 3
    configs = [asdict(composed("training.lr=null", f"dict_size={size}")) for size in (3072, 6144)]
    assert find_varying(configs) == ["dict_size"]


@pytest.mark.parametrize(
    ("steps", "dict_size", "lr"),
    [(1000, 16_384, 0.093 / 1000**0.5), (4000, 4096, 0.093 / 1000**0.5), (10, 16_384, 5.2e-3), (10, 4096, 1.04e-2)],
)
def test_the_rate_follows_the_steps_where_neither_rate_is_given(steps, dict_size, lr):
    """Four times the steps have half the rate, and a quarter of the latents twice; it has a limit for few steps."""
    words = ("training=efficient", f"training.tokens={1024 * steps + 1023}", f"dict_size={dict_size}")
    config = composed(*words)
    assert config.training.peak_lr(dict_size) == pytest.approx(lr)
    assert composed(*words, "training.base_lr=1e-3").training.peak_lr(16_384) == 1e-3
    assert composed(*words, "training.lr=2e-3").training.peak_lr(dict_size) == 2e-3


@pytest.mark.parametrize(
    "word",
    [
        "sae.penalty_window=upper",
        "sae.threshold_parameter=log",
        "sae.absolute_threshold=1",
        "training.dead_counts_batch=true",
        "training.aux_residual_gradient=true",
        "training.normalize_before_update=true",
        "training.initial_weights=data",
        "training.dead_threshold_factor=0.98",
    ],
)
def test_other_values_name_another_point_and_are_shown(word):
    both = [["sae=jumprelu"], ["sae=jumprelu", word]]
    assert len({compose_name(*words) for words in both}) == 2
    configs = [asdict(composed(*words)) for words in both]
    assert find_varying(configs) == find_swept(configs) == [word.partition("=")[0]]
