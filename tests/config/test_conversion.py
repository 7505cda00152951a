"""A configuration read back from JSON equals the one that was composed."""

import json
from dataclasses import asdict

import pytest

from sae_sweeps.config import from_json
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.validation import find_problems
from tests.conftest import composed


@pytest.mark.parametrize(
    "overrides",
    [
        ["sae=batchtopk"],
        ["sae=topk", "sae.aux_coefficient=0"],
        ["sae=jumprelu"],
        ["sae=matryoshka"],
        ["sae=relu", "sae.target_l0=20"],
        ["sae=gated"],
        ["sae=jumprelu", "sae.sparsity_coefficient=0.01"],
        ["sae=jumprelu", "sae.target_l0=20.5"],
        ["sae=jumprelu", "model=gpt2-small"],
        ["+model.sparsity_coefficients.values={5: 0.1, 16: 1}"],
        ["dataset=text", "dataset.files=[a,b c]"],
        ["dataset=text", "dataset.files='texts/*.txt'"],
        ["dataset=openwebtext", "training=paper", "experiment=gemma2_2b"],
        ["training.betas=[0.5,0.6]", "training.lr=1e-38", "activations.cache=/a/cache"],
        ["task=stitch", "small=a/b", "large=c", "stitch.threshold=0.5", "stitch.thresholds=[0.1,1]"],
        ["task=meta_sae", "saved=a/b", "meta.dict_size=9", "meta.include_dead=true", "latents.before=0"],
        ["limits.points=null", "limits.disk_gib=2", "then=[report]", "tracking.entity=us", "task=plan"],
    ],
)
def test_every_architecture_and_setting_survives_json(overrides):
    config = composed(*overrides)
    stored = json.loads(json.dumps(asdict(config)))
    read = from_json(stored)
    assert read == config
    assert type(read.sae) is SAE_SCHEMAS[config.sae.architecture]
    assert asdict(read) == asdict(config)
    assert find_problems(read) == find_problems(config)


def test_coefficients_are_keyed_by_numbers_after_json():
    config = composed("sae=jumprelu", "+model.sparsity_coefficients.values={5: 0.125}")
    stored = json.loads(json.dumps(asdict(config)))
    assert "5" in stored["model"]["sparsity_coefficients"]["values"]
    assert from_json(stored).model.sparsity_coefficients.values[5] == 0.125


def test_from_json_does_not_change_its_argument():
    stored = json.loads(json.dumps(asdict(composed("sae=jumprelu"))))
    before = json.dumps(stored)
    from_json(stored)
    assert json.dumps(stored) == before


@pytest.mark.parametrize("text", ["a ${b}", "${oc.env:HOME}", "100 %", "[1]", "null", "'x'"])
def test_strings_that_look_like_yaml_or_interpolations_stay_strings(text):
    escaped = text.replace("$", r"\$").replace("'", r"\'")
    config = composed(f"tracking.project='{escaped}'")
    assert config.tracking.project == text
    assert from_json(json.loads(json.dumps(asdict(config)))).tracking.project == text
