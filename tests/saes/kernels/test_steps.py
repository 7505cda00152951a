"""Whole training steps by kernels: against torch's, and fixed ones against free ones."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.config import TrainingConfig
from sae_sweeps.saes import TRAINABLE, TopKSAE, sparse
from sae_sweeps.training import fixed_step
from sae_sweeps.training.adam import AdamUpdate, KernelUpdate
from sae_sweeps.training.trainer import Trainer
from tests.saes.kernels.conftest import DEVICE, SWITCH

B, D, F, K = 7, 5, 9, 2
OFTEN = [("topk", "bfloat16"), ("batchtopk", "bfloat16"), ("jumprelu", "bfloat16")]
SELDOM = [("relu", "bfloat16"), ("gated", "bfloat16"), ("batchtopk", "float32"), ("jumprelu", "float32")]
FIXED = [*OFTEN, *(pytest.param(*case, marks=pytest.mark.long) for case in SELDOM)]  # they take seconds each


@pytest.fixture(autouse=True)
def entries_stay_sparse(monkeypatch):
    monkeypatch.setitem(sparse.DENSE_FROM, DEVICE, 1.0)


def make_batches(count):
    """Return batches that differ little, so that the threshold of one is a guess for the next."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    batch = torch.randn(B, D, generator=generator)
    return [batch + 0.001 * torch.randn(B, D, generator=generator) for _ in range(count)]


def make_trainer(architecture, steps=40, **training):
    limits = {"k": K} if issubclass(TRAINABLE[architecture], TopKSAE) else {"target_l0": K}
    if architecture == "matryoshka":
        limits["prefixes"] = [0.3, 1.0]
    values = {"lr": 3e-3, "dead_after_tokens": 10**6, "warmup_steps": 3, "precision": "float32"} | training
    with torch.device("cpu"):
        sae = TRAINABLE[architecture](D, F, **limits)
    trainer = Trainer(sae.to(DEVICE), TrainingConfig(tokens=steps * B, batch_size=B, **values))
    optimizer = trainer._update.optimizer  # with a larger epsilon a step is not the mere sign of a gradient near 0
    optimizer.defaults["eps"] = optimizer.param_groups[0]["eps"] = 0.01
    return trainer


def train(trainer, batches):
    return torch.stack([trainer.step(x_BD).loss for x_BD in batches])


def by_torch(monkeypatch, architecture, batches, **training):
    with monkeypatch.context() as patched:
        patched.delenv(SWITCH)
        trainer = make_trainer(architecture, **training)
        return trainer, train(trainer, batches)


def digest(trainer):
    return {name: tensor.clone() for name, tensor in trainer.state().items()}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(("architecture", "precision"), [("matryoshka", "bfloat16"), *FIXED])
def test_steps_by_kernels_are_torchs(architecture, precision, monkeypatch):
    batches = make_batches(6)
    expected, losses = by_torch(monkeypatch, architecture, batches)
    assert type(expected._update) is AdamUpdate
    trainer = make_trainer(architecture, precision=precision)
    assert type(trainer._update) is KernelUpdate
    assert_close(train(trainer, batches), losses, rtol=1e-6, atol=0)
    for name, tensor in trainer.state().items():
        assert_close(
            tensor, expected.state()[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(("architecture", "precision"), FIXED)
def test_fixed_steps_give_the_bits_of_the_others(architecture, precision, monkeypatch):
    batches, taken = make_batches(8), []
    trainer = make_trainer(architecture, precision=precision)
    take = fixed_step.FixedStep.take
    monkeypatch.setattr(fixed_step.FixedStep, "take", lambda self, x: taken.append(take(self, x)) or taken[-1])
    train(trainer, batches)
    assert sum(not outcome.overflow for _, outcome in taken) >= 2
    with monkeypatch.context() as patched:
        patched.setattr(fixed_step.FixedSteps, "STEPS_BEFORE", 10**9)
        free = make_trainer(architecture, precision=precision)
        train(free, batches)
    assert_same_bits(trainer.state(), free.state())


def test_a_batch_without_room_is_taken_the_other_way(monkeypatch):
    batches = make_batches(10)
    free, fixed = make_trainer("batchtopk"), make_trainer("batchtopk")
    with monkeypatch.context() as patched:
        patched.setattr(fixed_step.FixedSteps, "STEPS_BEFORE", 10**9)
        train(free, batches)
    outcomes, take = [], fixed_step.FixedStep.take
    monkeypatch.setattr(fixed_step.FixedStep, "take", lambda self, x: outcomes.append(take(self, x)) or outcomes[-1])
    for number, x_BD in enumerate(batches):
        if number == 6:
            fixed.sae.smallest_kept.fill_(1e6)  # a guess that no entry reaches
        fixed.step(x_BD)
    assert [outcome.overflow for _, outcome in outcomes] == [False, False, True, False, False, False]
    assert_same_bits(fixed.state(), free.state())


def test_an_infinite_loss_leaves_the_trainer_as_it_was():
    trainer, batches = make_trainer("topk"), make_batches(6)
    train(trainer, batches)
    before = digest(trainer)
    with pytest.raises(Exception, match=r"the loss is (nan|inf) at step 7"):
        trainer.step(batches[0] * torch.inf)
    assert_same_bits(digest(trainer), before)


@pytest.mark.long
def test_two_hundred_steps_lose_nothing(monkeypatch):
    batches = [batch for batch in make_batches(4) for _ in range(50)]
    _, losses = by_torch(monkeypatch, "batchtopk", batches, steps=200, lr=1e-3)
    found = train(make_trainer("batchtopk", steps=200, lr=1e-3), batches)
    assert losses[-1] < 0.9 * losses[0]
    assert_close(found, losses, rtol=1e-4, atol=0)
