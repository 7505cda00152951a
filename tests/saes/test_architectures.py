"""What every architecture of the table must do, also one that is added later."""

import dataclasses
import inspect

import pytest
import torch

from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.config.validation import find_problems
from sae_sweeps.formats import saelens
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.saes import TRAINABLE
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer, train
from tests.conftest import composed
from tests.training.test_trainer import Directions

TINY = ("dict_size=48", "k=4", "training.tokens=2560", "training.batch_size=64", "training.dead_after_tokens=300")


def trained(architecture):
    """The trainer of a point of this architecture after its 40 steps."""
    config = composed(f"sae={architecture}", *TINY)
    assert find_problems(config) == []
    trainer = Trainer(build_sae(config, 24), config.training)
    for _, steps in train([trainer], Directions()):
        for _ in steps:
            pass
    return trainer


def test_the_table_and_conf_list_the_same_architectures():
    assert {file.stem for file in (PROJECT / "conf" / "sae").glob("*.yaml")} == set(ARCHITECTURES) == set(TRAINABLE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_class_has_the_name_and_the_settings_of_its_entry(name):
    kind = TRAINABLE[name]
    assert kind.architecture == name
    assert kind.__module__ == f"sae_sweeps.saes.{name}"
    settings = {field.name for field in dataclasses.fields(ARCHITECTURES[name].schema)} - {"architecture"}
    taken = {parameter for base in kind.__mro__ for parameter in inspect.signature(base.__init__).parameters}
    assert settings <= taken


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_training_gives_an_sae_that_reconstructs_and_that_can_be_saved_and_read(name, tmp_path):
    sae = trained(name).sae
    x_BD = Directions().chunk(1000)
    assert (sae(x_BD) - x_BD).square().mean() < 0.9 * (x_BD - x_BD.mean(0)).square().mean()
    assert 0 < (sae.encode(x_BD) != 0).sum(1).float().mean() < 24
    saelens.write(tmp_path, sae.for_inference(), {})
    again = saelens.read(tmp_path)
    assert again.architecture == saelens.describe(tmp_path).architecture == name
    assert torch.equal(again(x_BD), sae.for_inference()(x_BD))
    assert torch.allclose(again(x_BD), sae(x_BD), atol=1e-4)
