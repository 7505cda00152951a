"""`training=paper` takes the training steps of the code of arXiv:2412.06410, as tests/published_step.py has them."""

import pytest
import torch

from sae_sweeps.config import Config
from sae_sweeps.config.validation import find_problems
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer, train
from tests.conftest import composed
from tests.published_step import PublishedStep
from tests.training.test_trainer import Directions

D, BATCH, STEPS = 24, 64, 300
SIZES = ["training=paper", f"training.tokens={STEPS * BATCH}", f"training.batch_size={BATCH}"]
SIZES += ["training.chunk_batches=8", f"training.dead_after_tokens={5 * BATCH}", "dict_size=256"]
LISTED = "+model.sparsity_coefficients={values: {5: 0.01}, penalty_window: upper, threshold_parameter: log, "
LISTED += "absolute_threshold: 1, bandwidth: 0.3}"  # a window that many entries lie in
SAES = {
    "topk": ["sae=topk", "k=5", "sae.aux_latents=16"],
    "batchtopk": ["sae=batchtopk", "k=5", "sae.aux_latents=16"],
    "jumprelu": ["sae=jumprelu", "k=5", LISTED],
}
VARIANTS = ("dead_counts_batch", "aux_residual_gradient", "normalize_before_update")


def train_both(config: Config) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Train an SAE as the command does, and as the published code does, on the same batches.

    Returns loss and L0 of every step of both, (steps, 2) each, and the number of steps with dead latents.
    """
    assert find_problems(config) == []
    trainer = Trainer(build_sae(config, D), config.training)
    published = PublishedStep(trainer.sae, config.training.lr)
    ours, theirs, dead_steps = [], [], 0
    stream = Directions()
    for index, (_, steps) in enumerate(train([trainer], stream)):
        batches = stream.chunk(index).split(BATCH)
        for step, x_BD in zip(steps, batches, strict=False):
            ours.append([step.loss.item(), step.l0.item()])
            theirs.append(list(published(x_BD)))
            dead_steps += published.dead > 0
    assert len(ours) == STEPS
    return torch.tensor(ours), torch.tensor(theirs), dead_steps


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs() / theirs).max().item()


@pytest.mark.parametrize("architecture", SAES)
def test_the_paper_preset_takes_the_published_steps(architecture):
    ours, theirs, dead_steps = train_both(composed(*SIZES, *SAES[architecture]))
    assert theirs[-1, 0] < 0.9 * theirs[0, 0]
    assert largest_difference(ours[:, 0], theirs[:, 0]) < 1e-3
    assert largest_difference(ours[:, 1], theirs[:, 1]) < 1e-2
    assert dead_steps > STEPS / 2 or architecture == "jumprelu"  # so that the auxiliary loss takes part


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_setting_of_the_paper_preset_matters(variant):
    words = [*SIZES, *SAES["batchtopk"]]
    ours, theirs, _ = train_both(composed(*words))
    without, again, _ = train_both(composed(*words, f"training.{variant}=false"))
    assert torch.equal(again, theirs)
    assert largest_difference(without[:, 0], theirs[:, 0]) > 10 * largest_difference(ours[:, 0], theirs[:, 0])


@pytest.mark.parametrize("architecture", SAES)
def test_a_resumed_training_takes_the_same_steps(architecture):
    config = composed(*SIZES, *SAES[architecture], f"training.tokens={40 * BATCH}")
    whole, first, second = (Trainer(build_sae(config, D), config.training) for _ in range(3))
    batches = [x_BD for index in range(5) for x_BD in Directions().chunk(index).split(BATCH)]
    for x_BD in batches:
        whole.step(x_BD)
    for x_BD in batches[:23]:
        first.step(x_BD)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for x_BD in batches[23:]:
        second.step(x_BD)
    expected = whole.state()
    assert second.state().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.state().items())
