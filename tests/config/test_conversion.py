"""A configuration that a JSON file kept is the one that was composed."""

import json
from dataclasses import asdict

import pytest

from sae_sweeps.config import from_json
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.validation import find_problems
from tests.conftest import composed


@pytest.mark.parametrize(
    "words",
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
def test_every_architecture_and_setting_comes_back_as_it_was(words):
    config = composed(*words)
    kept = json.loads(json.dumps(asdict(config)))
    read = from_json(kept)
    assert read == config
    assert type(read.sae) is SAE_SCHEMAS[config.sae.architecture]
    assert asdict(read) == asdict(config)
    assert find_problems(read) == find_problems(config)


def test_coefficients_have_numbers_for_keys_again():
    config = composed("sae=jumprelu", "+model.sparsity_coefficients.values={5: 0.125}")
    kept = json.loads(json.dumps(asdict(config)))
    assert "5" in kept["model"]["sparsity_coefficients"]["values"]
    assert from_json(kept).model.sparsity_coefficients.values[5] == 0.125


def test_what_was_read_is_not_changed():
    kept = json.loads(json.dumps(asdict(composed("sae=jumprelu"))))
    before = json.dumps(kept)
    from_json(kept)
    assert json.dumps(kept) == before


@pytest.mark.parametrize("text", ["a ${b}", "${oc.env:HOME}", "100 %", "[1]", "null", "'x'"])
def test_text_is_text_whatever_it_looks_like(text):
    escaped = text.replace("$", r"\$").replace("'", r"\'")
    config = composed(f"tracking.project='{escaped}'")
    assert config.tracking.project == text
    assert from_json(json.loads(json.dumps(asdict(config)))).tracking.project == text
