"""`compose` gives the configurations that Hydra composes point by point."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from sae_sweeps.launchers.composition import compose
from sae_sweeps.runtime.places import PROJECT


@pytest.fixture
def composed_both_ways():
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def compose_both(*batch: list[str]) -> tuple[list[dict], list[dict]]:
            words = ["hydra.launcher.max_points=2"]
            master = loader.load_configuration(
                "config", words, run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False
            )
            ours = compose(loader, master, batch, first=3)
            theirs = [loader.load_sweep_config(master, overrides) for overrides in batch]
            for number, config in enumerate(theirs, start=3):
                OmegaConf.set_struct(config, False)
                config.hydra.job.id, config.hydra.job.num = str(number), number
            return [OmegaConf.to_container(c) for c in ours], [OmegaConf.to_container(c) for c in theirs]

        yield compose_both


@pytest.mark.parametrize(
    "batch",
    [
        [["k=16", "seed=0"], ["k=16", "seed=1"], ["k=32", "seed=1"]],
        [["sae=topk", "dict_size=96"], ["sae=jumprelu", "dict_size=96"], ["dict_size=192", "sae=topk"]],
        [["training=paper", "training.tokens=5", "training.betas=[0.5,0.6]"], ["training.tokens=5", "training=quick"]],
        [["experiment=gpt2_small", "k=16"], ["k=16"], ["experiment=gemma2_2b", "k=16", "seed=2"]],
        [["+model.sparsity_coefficients.values={5: 0.1}"], ["dataset.files=[a,b]"], ["dataset.files='a b'"]],
        [["name=x", "hydra.verbose=true"], ["name=y", "hydra.verbose=false"]],
        [["dataset=text", "dataset.name=null"], ["tracking=off"], []],
    ],
)
def test_compose_gives_the_same_configurations_as_hydra(composed_both_ways, batch):
    ours, theirs = composed_both_ways(*batch)
    assert ours == theirs


@pytest.mark.parametrize("word", ["sae=nothing", "nothing=1", "k=many", "training.nothing=3", "k.j=3"])
def test_compose_raises_the_same_errors_as_hydra(composed_both_ways, word):
    with pytest.raises(ConfigCompositionException):
        composed_both_ways(["k=3"], [word])
