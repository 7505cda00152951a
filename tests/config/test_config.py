"""The configuration: the papers' presets, the checks of values, sparsity settings and the names of points."""

from dataclasses import asdict

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from sae_sweeps.config import point_name
from sae_sweeps.config.identity import RESULT_GROUPS, select_shown_settings
from sae_sweeps.config.sparsity import explain_sparsity, resolve_sparsity
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.places import PROJECT
from tests.conftest import EARLIER_QUICK, composed

PAPER_TRAINING = {
    "tokens": 1_000_000_000,
    "batch_size": 4096,
    "lr": 3e-4,
    "betas": [0.9, 0.99],
    "warmup_steps": 0,
    "decay_fraction": 0.0,
    "initial_bias": "zero",
    "dead_after_tokens": 5 * 4096,
    "dead_counts_batch": True,
    "aux_residual_gradient": True,
    "normalize_before_update": True,
}
# of JumpReLU in the code of arXiv:2412.06410
PAPER_JUMPRELU = {
    "penalty_window": "upper",
    "threshold_parameter": "log",
    "absolute_threshold": 1.0,
    "bandwidth": 0.001,
}
PAPERS = {  # experiment -> model, hook, the sweep's dictionary sizes, and JumpReLU's coefficient for each k
    "gpt2_small": (
        "gpt2",
        "blocks.8.hook_resid_pre",
        "3072,6144,12288,24576",
        {16: 0.004, 32: 0.0018, 64: 0.0008},
    ),
    "gemma2_2b": (
        "google/gemma-2-2b",
        "blocks.12.hook_resid_pre",
        "16384",
        {16: 0.02, 32: 0.005, 64: 0.001},
    ),
}


@pytest.mark.parametrize("experiment", PAPERS)
def test_experiments_have_the_settings_of_the_papers(experiment):
    model, hook, sizes, coefficients = PAPERS[experiment]
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"experiment={experiment}"], return_hydra_config=True)
    assert dict(cfg.hydra.sweeper.params) == {
        "sae": "batchtopk,topk,jumprelu",
        "dict_size": sizes,
        "k": "16,32,64",
    }
    for k, coefficient in coefficients.items():
        config = composed(f"experiment={experiment}", "sae=jumprelu", f"k={k}")
        assert not find_problems(config)
        assert (config.model.name, config.model.hook) == (model, hook)
        assert {name: getattr(config.training, name) for name in PAPER_TRAINING} == PAPER_TRAINING
        assert (config.dataset.name, config.dataset.streaming, config.dataset.seq_len) == (
            "Skylion007/openwebtext",
            True,
            128,
        )
        assert (config.dataset.bos, config.dataset.exclude) == ("document", "none")
        assert resolve_sparsity(config) == {"sparsity_coefficient": coefficient}
        assert f"k={k}" in explain_sparsity(config)
        assert {name: getattr(config.sae, name) for name in PAPER_JUMPRELU} == PAPER_JUMPRELU
    topk = composed(f"experiment={experiment}", "sae=topk").sae
    assert (topk.aux_coefficient, topk.aux_latents, topk.normalize_input) == (1 / 32, 512, True)


@pytest.mark.parametrize("group", ["model", "dataset", "sae", "training", "meta", "tracking", "experiment"])
def test_every_choice_composes(group):
    for file in (PROJECT / "conf" / group).glob("*.yaml"):
        composed(f"{group}={file.stem}")


@pytest.mark.parametrize(
    ("override", "setting"),
    [
        ("k=0", "k"),
        ("k=4000", "k"),
        ("dict_size=-1", "dict_size"),
        ("name=a/b", "name"),
        ("name=..", "name"),
        ("seed=-1", "seed"),
        ("model.dtype=int8", "model.dtype"),
        ("dataset.seq_len=2", "dataset.seq_len"),
        ("task.name=nope", "task.name"),
        ("model.name=", "model.name"),
        ("dataset.files=3", "dataset.files"),
        ("dataset.files=[a.txt,3]", "dataset.files"),
        ("training.initial_bias=median", "training.initial_bias"),
        ("dataset.holdout_every=1", "dataset.holdout_every"),
        ("dataset=text", "dataset.files"),
        ("dataset=hub", "dataset.name"),
        ("training.tokens=100", "training.tokens"),
        ("training.lr=nan", "training.lr"),
        ("training.base_lr=0", "training.base_lr"),
        ("training.initial_weights=zero", "training.initial_weights"),
        ("training.dead_threshold_factor=0", "training.dead_threshold_factor"),
        ("training.dead_threshold_factor=1.1", "training.dead_threshold_factor"),
        ("training.betas=[0.9]", "training.betas"),
        ("training.decay_fraction=2", "training.decay_fraction"),
        ("sae.aux_coefficient=-1", "sae.aux_coefficient"),
        ("training.dead_after_tokens=0", "training.dead_after_tokens"),
        ("sae.threshold_momentum=1", "sae.threshold_momentum"),
        ("tracking.mode=loud", "tracking.mode"),
        ("tracking.tags=['']", "tracking.tags"),
        ("then=[stich]", "then"),
        ("then=[status]", "then"),
        ("stitch.threshold=0", "stitch.threshold"),
        ("stitch.threshold=1.01", "stitch.threshold"),
        ("stitch.thresholds=[]", "stitch.thresholds"),
        ("stitch.thresholds=[0.5,nan]", "stitch.thresholds"),
        ("stitch.tokens=0", "stitch.tokens"),
        ("stitch.ce_positions=1", "stitch.ce_positions"),
        ("meta.k=0", "meta.k"),
        ("meta.dict_size=0", "meta.dict_size"),
        ("meta.dict_size=3", "meta.k"),
        ("meta.lr=nan", "meta.lr"),
        ("latents.before=-1", "latents.before"),
        ("latents.examples=0", "latents.examples"),
        ("small=a", "small"),
        ("large=a", "large"),
    ],
)
def test_a_bad_value_gives_one_problem_that_names_the_setting_and_a_fix(override, setting):
    (problem,) = find_problems(composed(override))
    assert problem.setting == setting
    assert str(problem).startswith(f"{setting}=")
    assert "Fix: " in str(problem)
    assert "\n" not in str(problem)


def test_weights_from_data_need_the_mean():
    (problem,) = find_problems(composed("training.initial_weights=data", "training.initial_bias=zero"))
    assert problem.setting == "training.initial_weights"
    assert problem.fix == "training.initial_bias=mean"
    assert not find_problems(composed("training.initial_weights=data", "training.initial_bias=mean"))


@pytest.mark.parametrize(
    ("prefixes", "problem"),
    [
        ("[]", "must be increasing fractions of dict_size, the last one 1"),
        ("[0.5]", "must be increasing fractions of dict_size, the last one 1"),
        ("[0.5,0.25,1]", "must be increasing fractions of dict_size, the last one 1"),
        ("[0,1]", "must be increasing fractions of dict_size, the last one 1"),
        ("[nan,1]", "must be increasing fractions of dict_size, the last one 1"),
        ("[0.0001,1]", "two round to the same number of latents with dict_size=3072"),
        ("[0.5,0.50001,1]", "two round to the same number of latents with dict_size=3072"),
    ],
)
def test_prefixes_must_increase_to_1_and_each_add_a_latent(prefixes, problem):
    (found,) = find_problems(composed("sae=matryoshka", f"sae.prefixes={prefixes}"))
    assert found.setting == "sae.prefixes"
    assert problem in str(found)
    assert not find_problems(composed("sae=matryoshka", "sae.prefixes=[0.01,0.5,1]"))


LISTED = ("sae=jumprelu", "model=gpt2-small")  # the model lists coefficients for k = 16, 32, 64


def test_jumprelu_uses_a_given_setting_then_a_listed_coefficient_then_k_as_target_l0():
    given = {"sparsity_coefficient": 0.5}
    for overrides, expected, source in (
        ((*LISTED, "k=16"), {"sparsity_coefficient": 0.004}, "which the model's configuration lists for k=16"),
        ((*LISTED, "k=33"), {"target_l0": 33.0}, "sae.target_l0=33, which is k=33, because"),
        ((*LISTED, "k=16", "sae.target_l0=${k}"), {"target_l0": 16.0}, "as given"),
        ((*LISTED, "k=16", "sae.target_l0=20.5"), {"target_l0": 20.5}, "sae.target_l0=20.5, as given"),
        ((*LISTED, "k=33", "sae.sparsity_coefficient=0.5"), given, "as given"),
        (("sae=jumprelu", "model=smollm2-135m"), {"target_l0": 32.0}, "no sae.sparsity_coefficient is given or listed"),
    ):
        config = composed(*overrides)
        assert not find_problems(config)
        assert resolve_sparsity(config) == expected
        assert source in explain_sparsity(config)


def test_a_coefficient_and_a_target_l0_cannot_be_combined():
    (problem,) = find_problems(composed("sae=jumprelu", "sae.target_l0=9", "sae.sparsity_coefficient=0.01"))
    assert problem.setting == "sae.target_l0"
    assert "sae.sparsity_coefficient=0.01" in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize("value", ["0", "-1", "3072", "nan", "inf"])
def test_a_target_l0_outside_0_to_dict_size_is_refused(value):
    (problem,) = find_problems(composed("sae=jumprelu", f"sae.target_l0={value}"))
    assert problem.setting == "sae.target_l0"
    assert "sae.target_l0=32" in str(problem)


def test_a_coefficient_listed_for_another_hook_comes_with_a_warning():
    assert "check the L0" in explain_sparsity(composed(*LISTED, "model.hook=blocks.1.hook_resid_pre"))


def compose_name(*overrides: str, also_listed: dict[int, float] | None = None) -> str:
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    with open_dict(cfg):
        cfg.model.sparsity_coefficients["values"].update(also_listed or {})
    return point_name(cfg)


def test_the_name_of_a_point_depends_on_all_settings_of_its_result_and_on_no_others():
    default = compose_name()
    assert default.startswith("batchtopk-3072-k32-seed0-")
    same = ["training.log_every=3", "training.checkpoint_every=7", "tracking=off", "device=cpu", "output_root=/tmp/x"]
    assert {compose_name(override) for override in same} == {default}
    other = [
        "training.lr=1e-3",
        "dataset.seq_len=64",
        "sae.aux_latents=4",
        "evaluation.tokens=9",
        "model.dtype=float16",
    ]
    names = {compose_name(override) for override in other}
    assert len(names) == len(other)
    assert default not in names


def test_a_listed_coefficient_names_the_same_point_as_a_given_one_whatever_else_is_listed():
    listed = compose_name(*LISTED)
    given = f"sae.sparsity_coefficient={composed('model=gpt2-small').model.sparsity_coefficients.values[32]}"
    # from before a coefficient had settings of its own
    assert compose_name(*LISTED, given, *EARLIER_QUICK).endswith("-f1b918e4")
    assert compose_name(*LISTED, given, *(f"sae.{name}={value}" for name, value in PAPER_JUMPRELU.items())) == listed
    assert compose_name(*LISTED, also_listed={8: 0.02}) == listed
    assert compose_name(*LISTED, "sae.sparsity_coefficient=0.5") != listed
    assert compose_name("sae=topk", also_listed={32: 0.02}) == compose_name("sae=topk")


def test_a_target_l0_equal_to_k_names_the_same_point_as_the_default():
    default = compose_name(*LISTED, "k=33")
    assert {compose_name(*LISTED, "k=33", f"sae.target_l0={value}") for value in ("33", "33.0", "${k}")} == {default}
    assert compose_name(*LISTED, "k=33", "sae.target_l0=34") != default
    assert compose_name(*LISTED, "sae.target_l0=32") != compose_name(*LISTED)


@pytest.mark.parametrize("architecture", ["relu", "gated"])
def test_relu_and_gated_saes_without_a_coefficient_train_to_an_l0_of_k(architecture):
    """Check also that they ignore the model's list, which is for JumpReLU only."""
    for overrides, expected in (
        ([], {"target_l0": 32}),
        (["sae.target_l0=20"], {"target_l0": 20}),
        (["sae.sparsity_coefficient=0.1"], {"sparsity_coefficient": 0.1}),
    ):
        assert resolve_sparsity(composed(f"sae={architecture}", *overrides)) == expected
    assert compose_name(f"sae={architecture}") == compose_name(f"sae={architecture}", also_listed={32: 0.5})
    assert compose_name(f"sae={architecture}") == compose_name(f"sae={architecture}", "sae.target_l0=32")
    assert not find_problems(composed(f"sae={architecture}", "k=33", "sae.initial_threshold=0"))
    (problem,) = find_problems(composed(f"sae={architecture}", "sae.initial_threshold=-1"))
    assert problem.setting == "sae.initial_threshold"


def test_the_name_of_a_point_does_not_depend_on_the_folder_of_fetched_models(tmp_path, monkeypatch):
    fetched = ["model=smollm2-135m", "model.dtype=float32"]
    names = {compose_name(*fetched)}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "sae-sweeps" / "models" / "smollm2-135m-instruct-q4_1"
    assert composed("model=smollm2-135m").model.name == str(folder)
    names.add(compose_name(*fetched))
    assert len(names) == 1
    assert compose_name(*fetched, "model.name=HuggingFaceTB/SmolLM2-135M") not in names


def test_the_settings_that_wandb_gets_are_those_of_the_point():
    config = composed("sae=topk", "name=s", "k=8", "limits.points=5", "meta.k=7", "output_root=/a/b")
    shown = select_shown_settings(config)
    assert set(shown) == {"name", *RESULT_GROUPS, "device"}
    assert shown["sae"] == {**asdict(config.sae)}
    assert set(shown["model"]) == {"name", "hook", "dtype", "batch_sequences", "reader"}
