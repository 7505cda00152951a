"""Random controls never follow the random numbers of what they are controls of."""

import re

import numpy as np
import pytest
import torch

from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.studies.meta_sae import shuffle_directions

DRAWS = re.compile(r"manual_seed\((.*)\)|default_rng\((.*)\)|np\.random\.seed|random\.(?:seed|shuffle|sample)\(")
# draws whose numbers training points depend on
TRAINING = {"training/streams.py", "activations/tokens.py", "activations/chunks.py", "saes/trainable.py"}


def test_seeds_differ_by_purpose_and_by_seed():
    seeds = [mix_seed(seed, purpose) for seed in (0, 1, -1, 10**30) for purpose in ("a", "b", "a 0")]
    assert len(set(seeds)) == len(seeds)
    for seed in seeds:
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
def test_directions_drawn_with_the_same_seed_are_shuffled_in_another_order(seed, draw):
    """They were put into ascending order in each coordinate."""
    drawn_AD = draw(40, 8, generator=torch.Generator().manual_seed(seed))
    shuffled_AD = shuffle_directions(drawn_AD, seed)
    rising = (shuffled_AD.diff(dim=0) > 0).float().mean()
    assert 0.3 < rising < 0.7
    order_A = torch.arange(40.0)[:, None].expand(40, 8)
    correlation = torch.corrcoef(torch.stack([shuffled_AD.flatten(), order_A.flatten()]))[0, 1]
    assert correlation.abs() < 0.3


def test_every_draw_outside_training_is_mixed_with_its_purpose():
    package = PROJECT / "sae_sweeps"
    found = {}
    for file in package.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if DRAWS.search(line) and "mix_seed" not in line and "`" not in line:
                found[str(file.relative_to(package))] = line
    assert found.keys() == TRAINING
