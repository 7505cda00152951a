"""The fast training steps cost no quality: SAEs of the embedded model, compared with a plain dense implementation."""

import pytest
import torch

from sae_sweeps.activations.source import load_source
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer, train
from tests.conftest import composed
from tests.reference import nmse, train_densely

pytestmark = pytest.mark.long


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "jumprelu"])
def test_a_trained_sae_is_as_good_as_one_trained_densely(architecture):
    config = composed(f"sae={architecture}", "dict_size=768", "training.tokens=65536")
    source = load_source(config, torch.device("cpu"))
    stream = source.stream(config)
    trainer = Trainer(build_sae(config, source.d_in), config.training)
    for _, steps in train([trainer], stream):
        for _ in steps:
            pass
    dense = train_densely(build_sae(config, source.d_in), config.training, stream)
    acts_AD = source.held_out(config.evaluation.tokens).acts_AD
    ours, theirs = nmse(trainer.sae, acts_AD), nmse(dense, acts_AD)
    print(f"{architecture}: NMSE {ours:.5f}, dense {theirs:.5f}, ratio {ours / theirs:.5f}")
    assert ours == pytest.approx(theirs, rel=0.01)
