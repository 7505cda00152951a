"""The configuration: the papers' numbers, the rules, and the names of points."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from sae_sweeps.config import identity, point_name, wheel_models
from sae_sweeps.config.sparsity import choose_sparsity
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.provenance import PROJECT
from tests.conftest import composed

PAPER_TRAINING = {
    "tokens": 1_000_000_000,
    "batch_size": 4096,
    "lr": 3e-4,
    "betas": [0.9, 0.99],
    "warmup_steps": 0,
    "decay_fraction": 0.0,
    "initial_bias": "zero",
    "dead_after_tokens": 5 * 4096,
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
def test_experiments_are_the_papers(experiment):
    model, hook, sizes, coefficients = PAPERS[experiment]
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"experiment={experiment}"], return_hydra_config=True)
    assert dict(cfg.hydra.sweeper.params) == {
        "sae": "batchtopk,topk,jumprelu",
        "dict_size": sizes,
        "k": "16,32,64",
    }
    for k, coefficient in coefficients.items():
        schema = composed(f"experiment={experiment}", "sae=jumprelu", f"k={k}")
        assert not find_problems(schema)
        assert (schema.model.name, schema.model.hook) == (model, hook)
        assert {name: getattr(schema.training, name) for name in PAPER_TRAINING} == PAPER_TRAINING
        assert (schema.dataset.name, schema.dataset.streaming, schema.dataset.seq_len) == (
            "Skylion007/openwebtext",
            True,
            128,
        )
        chosen, source = choose_sparsity(schema)
        assert chosen == {"sparsity_coefficient": coefficient}
        assert f"k={k}" in source
        assert schema.sae.bandwidth == 0.001
    topk = composed(f"experiment={experiment}", "sae=topk").sae
    assert (topk.aux_coefficient, topk.aux_latents, topk.normalize_input) == (1 / 32, 512, True)


@pytest.mark.parametrize("group", ["model", "dataset", "sae", "training", "tracking", "experiment"])
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
        ("training.betas=[0.9]", "training.betas"),
        ("training.decay_fraction=2", "training.decay_fraction"),
        ("sae.aux_coefficient=-1", "sae.aux_coefficient"),
        ("sae.threshold_momentum=1", "sae.threshold_momentum"),
        ("tracking.mode=loud", "tracking.mode"),
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
def test_bad_values_are_named_once_with_a_fix(override, setting):
    (problem,) = find_problems(composed(override))
    assert problem.setting == setting
    assert str(problem).startswith(f"{setting}=")
    assert "Fix: " in str(problem)
    assert "\n" not in str(problem)


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
def test_prefixes_that_are_none(prefixes, problem):
    (found,) = find_problems(composed("sae=matryoshka", f"sae.prefixes={prefixes}"))
    assert found.setting == "sae.prefixes"
    assert problem in str(found)
    assert not find_problems(composed("sae=matryoshka", "sae.prefixes=[0.01,0.5,1]"))


LISTED = ("sae=jumprelu", "model=gpt2-small")  # for k = 16, 32, 64


def test_jumprelu_takes_what_is_given_then_what_is_listed_then_k():
    given = {"sparsity_coefficient": 0.5}
    for words, chosen, said in (
        ((*LISTED, "k=16"), {"sparsity_coefficient": 0.004}, "listed for k=16"),
        ((*LISTED, "k=33"), {"target_l0": 33.0}, "sae.target_l0=33, for k=33"),
        ((*LISTED, "k=16", "sae.target_l0=${k}"), {"target_l0": 16.0}, "as given"),
        ((*LISTED, "k=16", "sae.target_l0=20.5"), {"target_l0": 20.5}, "sae.target_l0=20.5, as given"),
        ((*LISTED, "k=33", "sae.sparsity_coefficient=0.5"), given, "as given"),
        (("sae=jumprelu", "model=smollm2-135m"), {"target_l0": 32.0}, "no sae.sparsity_coefficient is given or listed"),
    ):
        schema = composed(*words)
        assert not find_problems(schema)
        found, source = choose_sparsity(schema)
        assert found == chosen
        assert said in source


def test_a_coefficient_and_an_l0_are_one_too_many():
    (problem,) = find_problems(composed("sae=jumprelu", "sae.target_l0=9", "sae.sparsity_coefficient=0.01"))
    assert problem.setting == "sae.target_l0"
    assert "sae.sparsity_coefficient=0.01" in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize("value", ["0", "-1", "3072", "nan", "inf"])
def test_an_l0_that_cannot_be_is_refused(value):
    (problem,) = find_problems(composed("sae=jumprelu", f"sae.target_l0={value}"))
    assert problem.setting == "sae.target_l0"
    assert "sae.target_l0=32" in str(problem)


def test_a_coefficient_used_elsewhere_says_so():
    _, source = choose_sparsity(composed(*LISTED, "model.hook=blocks.1.hook_resid_pre"))
    assert "check the l0" in source


def name_of(*overrides: str, also_listed: dict[int, float] | None = None) -> str:
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    with open_dict(cfg):
        cfg.model.sparsity_coefficients["values"].update(also_listed or {})
    return point_name(cfg)


def test_a_point_is_named_by_what_decides_its_result():
    plain = name_of()
    assert plain.startswith("batchtopk-3072-k32-seed0-")
    same = ["training.log_every=3", "training.checkpoint_every=7", "tracking=off", "device=cpu", "output_root=/tmp/x"]
    assert {name_of(override) for override in same} == {plain}
    other = [
        "training.lr=1e-3",
        "dataset.seq_len=64",
        "sae.aux_latents=4",
        "evaluation.tokens=9",
        "model.dtype=float16",
    ]
    names = {name_of(override) for override in other}
    assert len(names) == len(other)
    assert plain not in names


def test_a_coefficient_is_the_same_point_listed_or_given_and_others_listed_do_not_matter():
    listed = name_of(*LISTED)
    value = composed("model=gpt2-small").model.sparsity_coefficients.values[32]
    assert listed.endswith("-f1b918e4")  # as it was before there was an l0 to come to
    assert name_of(*LISTED, f"sae.sparsity_coefficient={value}") == listed
    assert name_of(*LISTED, also_listed={8: 0.02}) == listed
    assert name_of(*LISTED, "sae.sparsity_coefficient=0.5") != listed
    assert name_of("sae=topk", also_listed={32: 0.02}) == name_of("sae=topk")


def test_an_l0_is_the_same_point_given_or_left_to_k():
    left = name_of(*LISTED, "k=33")
    assert {name_of(*LISTED, "k=33", f"sae.target_l0={value}") for value in ("33", "33.0", "${k}")} == {left}
    assert name_of(*LISTED, "k=33", "sae.target_l0=34") != left
    assert name_of(*LISTED, "sae.target_l0=32") != name_of(*LISTED)


@pytest.mark.parametrize("architecture", ["relu", "gated"])
def test_what_has_a_penalty_and_no_coefficient_is_steered_to_k(architecture):
    """The model's list is of JumpReLU's coefficients alone."""
    assert choose_sparsity(composed(f"sae={architecture}"))[0] == {"target_l0": 32}
    assert choose_sparsity(composed(f"sae={architecture}", "sae.target_l0=20"))[0] == {"target_l0": 20}
    assert choose_sparsity(composed(f"sae={architecture}", "sae.sparsity_coefficient=0.1"))[0] == {
        "sparsity_coefficient": 0.1
    }
    assert name_of(f"sae={architecture}") == name_of(f"sae={architecture}", also_listed={32: 0.5})
    assert name_of(f"sae={architecture}") == name_of(f"sae={architecture}", "sae.target_l0=32")
    assert not find_problems(composed(f"sae={architecture}", "k=33", "sae.initial_threshold=0"))
    (problem,) = find_problems(composed(f"sae={architecture}", "sae.initial_threshold=-1"))
    assert problem.setting == "sae.initial_threshold"


def test_a_fetched_model_is_the_same_point_wherever_it_is_kept(tmp_path, monkeypatch):
    names = {name_of("model=smollm2-135m", "model.dtype=float32")}
    for module in (identity, wheel_models):
        monkeypatch.setattr(module, "MODELS", tmp_path)
    assert composed("model=smollm2-135m").model.name == str(tmp_path / "smollm2-135m-instruct-q4_1")
    names.add(name_of("model=smollm2-135m", "model.dtype=float32"))
    assert len(names) == 1
    assert name_of("model=smollm2-135m", "model.dtype=float32", "model.name=HuggingFaceTB/SmolLM2-135M") not in names
