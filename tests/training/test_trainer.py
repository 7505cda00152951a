import dataclasses

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.config import TrainingConfig
from sae_sweeps.runtime.errors import TrainingError
from sae_sweeps.saes import BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, train
from tests.reference import nmse, train_densely

D, F, STEPS = 10, 32, 23
CONFIG = TrainingConfig(
    tokens=STEPS * 16, batch_size=16, lr=1e-2, chunk_batches=4, dead_after_tokens=40, warmup_steps=4, decay_fraction=0.5
)
PUBLISHED = {"penalty_window": "upper", "threshold_parameter": "log"}
SAES = {
    "topk": lambda: TopKSAE(D, F, 3, aux_latents=4),
    "batchtopk": lambda: BatchTopKSAE(D, F, 3, aux_latents=4),
    "matryoshka": lambda: MatryoshkaSAE(D, F, 3, aux_latents=4, prefixes=[0.25, 1.0]),
    "relu": lambda: ReLUSAE(D, F, sparsity_coefficient=0.01),
    "gated": lambda: GatedSAE(D, F, target_l0=4),
    "jumprelu": lambda: JumpReLUSAE(D, F, sparsity_coefficient=0.01, bandwidth=0.2, initial_threshold=0.5),
    "jumprelu to an l0": lambda: JumpReLUSAE(D, F, target_l0=3, bandwidth=0.2),
    "jumprelu as published": lambda: JumpReLUSAE(
        D, F, sparsity_coefficient=0.01, bandwidth=0.2, absolute_threshold=0.4, **PUBLISHED
    ),
    "jumprelu of logarithms to an l0": lambda: JumpReLUSAE(D, F, target_l0=3, bandwidth=0.2, **PUBLISHED),
}


class Stream:
    """Random activations, seeded by the index of their chunk."""

    chunk_size = 64

    def chunk(self, index):
        return torch.randn(64, D, generator=torch.Generator().manual_seed(index))


def steps_of(trainer):
    for _, steps in train([trainer], Stream()):
        yield from steps


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        ),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", SAES)
def test_the_same_steps_give_the_same_bytes(architecture, precision, device):
    """Many entries in each latent's sum, so that any other order of adding would show."""
    config = dataclasses.replace(CONFIG, batch_size=512, tokens=4 * 512, dead_after_tokens=512, precision=precision)
    batches = [torch.randn(512, D, generator=torch.Generator().manual_seed(seed)).to(device) for seed in range(4)]
    states = []
    for _ in range(3):
        trainer = Trainer(SAES[architecture]().to(device), config)
        for x_BD in batches:
            trainer.step(x_BD)
        states.append({name: tensor.clone() for name, tensor in trainer.state().items()})
    for state in states[1:]:
        for name, tensor in states[0].items():
            assert torch.equal(state[name], tensor), name


SIZED = dataclasses.replace(CONFIG, lr=None, base_lr=5e-4)
FROM_DATA = dataclasses.replace(CONFIG, initial_bias="mean", initial_weights="data")
REVIVED = dataclasses.replace(CONFIG, dead_threshold_factor=0.9)


@pytest.mark.parametrize("config", [CONFIG, SIZED, FROM_DATA, REVIVED], ids=["lr", "base_lr", "from data", "revived"])
@pytest.mark.parametrize("interrupted_at", [1, 4, 7, 22])
@pytest.mark.parametrize("architecture", SAES)
def test_a_resumed_training_ends_in_the_same_state(architecture, interrupted_at, config):
    whole = Trainer(SAES[architecture](), config)
    assert len(list(steps_of(whole))) == STEPS

    first = Trainer(SAES[architecture](), config)
    for _ in steps_of(first):
        if first.steps_done == interrupted_at:
            break
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = Trainer(SAES[architecture](), config)
    second.load_state(state)
    assert len(list(steps_of(second))) == STEPS - interrupted_at

    resumed, expected = second.state(), whole.state()
    assert resumed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize("architecture", SAES)
def test_training_lowers_the_error_and_keeps_decoder_rows_at_unit_norm(architecture):
    trainer = Trainer(SAES[architecture](), CONFIG)
    errors = [step.mse.item() for step in steps_of(trainer)]
    assert sum(errors[-5:]) < 0.9 * sum(errors[:5])
    assert_close(trainer.sae.W_dec.norm(dim=1), torch.ones(F))


class Directions:
    """Activations that are sparse sums of many directions, the data that an SAE assumes."""

    chunk_size = 8 * 64

    def __init__(self, dtype=torch.float32):
        self.dtype = dtype

    def chunk(self, index):
        generator = torch.Generator().manual_seed(7)
        directions_FD = torch.randn(96, 24, generator=generator)
        generator.manual_seed(index)
        strengths_AF = torch.relu(torch.randn(self.chunk_size, 96, generator=generator) - 1.8)
        acts_AD = strengths_AF @ directions_FD + 0.05 * torch.randn(self.chunk_size, 24, generator=generator)
        return acts_AD.to(self.dtype)


CASES = [(name, precision, "random") for name in SAES for precision in ("float32", "bfloat16")]
CASES += [(name, "bfloat16", "data") for name in ("topk", "batchtopk", "jumprelu to an l0")]


@pytest.mark.parametrize(("architecture", "precision", "initial_weights"), CASES)
def test_a_trained_sae_is_as_good_as_a_dense_implementation(architecture, precision, initial_weights):
    """The dense one computes in float64: in float32 some of these trainings drift by rounding, which differs by CPU."""
    makes = {
        "topk": lambda: TopKSAE(24, 128, 6, aux_latents=8),
        "batchtopk": lambda: BatchTopKSAE(24, 128, 6, aux_latents=8),
        "matryoshka": lambda: MatryoshkaSAE(24, 128, 6, aux_latents=8),
        "relu": lambda: ReLUSAE(24, 128, sparsity_coefficient=0.01),
        "gated": lambda: GatedSAE(24, 128, sparsity_coefficient=0.01),
        "jumprelu": lambda: JumpReLUSAE(24, 128, sparsity_coefficient=0.003, bandwidth=0.1),
        "jumprelu to an l0": lambda: JumpReLUSAE(24, 128, target_l0=6, bandwidth=0.1),
        "jumprelu as published": lambda: JumpReLUSAE(
            24, 128, sparsity_coefficient=0.003, bandwidth=0.1, absolute_threshold=0.7, **PUBLISHED
        ),
        "jumprelu of logarithms to an l0": lambda: JumpReLUSAE(24, 128, target_l0=6, bandwidth=0.1, **PUBLISHED),
    }
    settings = {"tokens": 300 * 64, "batch_size": 64, "lr": 1e-2, "chunk_batches": 8, "dead_after_tokens": 640}
    config = TrainingConfig(**settings, decay_fraction=0.3, initial_bias="mean", precision=precision)
    config = dataclasses.replace(config, initial_weights=initial_weights)
    if initial_weights == "data":
        config = dataclasses.replace(config, dead_threshold_factor=0.98)
    trainer = Trainer(makes[architecture](), config)
    dead_steps = 0
    for _, steps in train([trainer], Directions()):
        dead_steps += sum(bool(trainer.dead_F.any()) for _ in steps)
    dense = train_densely(makes[architecture]().double(), config, Directions(torch.float64))
    held_out_AD = Directions().chunk(1000)
    expected = nmse(dense, held_out_AD.double())
    assert 0.02 < expected < 0.6
    assert nmse(trainer.sae, held_out_AD) == pytest.approx(expected, rel=0.01)
    assert dead_steps > 50 or trainer.sae.aux_coefficient == 0  # so that the auxiliary loss, if any, took part


def test_one_step_is_adam_on_the_tangential_gradient():
    sae = TopKSAE(D, F, 3)
    x_BD = Stream().chunk(0)[:16]
    expected = TopKSAE(D, F, 3)
    expected.training_step(expected.normalize(x_BD).x_BD, torch.zeros(F, dtype=torch.bool))
    gradient_FD = expected.W_dec.grad - (expected.W_dec.grad * expected.W_dec).sum(1, keepdim=True) * expected.W_dec
    # Adam's first step is lr * sign, up to its epsilon
    rows_FD = expected.W_dec - CONFIG.lr / CONFIG.warmup_steps * gradient_FD / (gradient_FD.abs() + 1e-8)
    Trainer(sae, CONFIG).step(x_BD)
    assert_close(sae.W_dec, rows_FD / rows_FD.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_the_learning_rate_warms_up_and_decays():
    trainer = Trainer(SAES["topk"](), CONFIG)
    rates = []
    for _ in range(STEPS):
        rates.append(trainer.lr(len(rates) + 1))
    assert_close(rates[:4], [0.0025, 0.005, 0.0075, 0.01])
    assert rates[4:12] == [0.01] * 8
    assert_close(rates[-1], 0.01 / (0.5 * STEPS))


def test_without_a_learning_rate_it_falls_with_the_root_of_the_size():
    """The slow reference: each size trained with the rate that dictionary_learning's formula gives it."""
    for size in (16, 64):
        given = dataclasses.replace(CONFIG, lr=5e-4 / (size / 2**14) ** 0.5)
        states = []
        for config in (SIZED, given):
            trainer = Trainer(TopKSAE(D, size, 3, aux_latents=4), config)
            assert len(list(steps_of(trainer))) == STEPS
            states.append(trainer.state())
        assert_close(trainer.lr(4), {16: 0.016, 64: 0.008}[size])
        for name, tensor in states[1].items():
            assert torch.equal(states[0][name], tensor), name


def test_silent_latents_are_dead_after_the_configured_tokens():
    sae = TopKSAE(D, F, 1)
    with torch.no_grad():
        sae.W_enc[3:] = 0  # latents from 3 on are never active
    trainer = Trainer(sae, TrainingConfig(tokens=1600, batch_size=16, lr=1e-9, dead_after_tokens=48))
    dead = []
    for _ in range(4):
        trainer.step(Stream().chunk(0)[:16])
        dead.append(bool(trainer.dead_F[5]))
    assert dead == [False, False, True, True]  # after 16, 32, 48, 64 silent tokens


@pytest.mark.parametrize("parameter", ["plain", "log"])
def test_the_threshold_of_a_dead_latent_falls_until_it_fires(parameter):
    x_BD = Stream().chunk(0)[:16]
    fired = {}
    for factor in (1.0, 0.9):
        sae = JumpReLUSAE(
            D,
            F,
            sparsity_coefficient=0.01,
            absolute_threshold=0.01,
            threshold_parameter=parameter,
            normalize_input=False,
        )
        largest = (x_BD @ sae.W_enc.detach()[5]).max()
        sae.lower_thresholds(torch.arange(F) == 5, 150 * largest.item())  # from 0.01 to 1.5 * largest
        settings = {"dead_after_tokens": 48, "dead_threshold_factor": factor}
        trainer = Trainer(sae, TrainingConfig(tokens=1600, batch_size=16, lr=1e-9, **settings))
        fired[factor] = [bool(trainer.step(x_BD).fired_F[5]) for _ in range(9)]
        lowered = 4 if factor < 1 else 0  # dead after steps 3 to 6; 1.5 * 0.9^4 is the first that is below 1
        expected_F = torch.full((F,), 0.01)
        expected_F[5] = 1.5 * largest * factor**lowered
        assert_close(sae.inference_threshold, expected_F, rtol=1e-4, atol=1e-6)
    assert fired == {1.0: [False] * 9, 0.9: [False] * 6 + [True] * 3}


def test_a_loss_that_is_not_finite_raises():
    trainer = Trainer(SAES["topk"](), CONFIG)
    with pytest.raises(TrainingError, match="nan at step 1"):
        trainer.step(torch.full((16, D), float("nan")))


def test_a_tensor_stream_shuffles_each_epoch_in_another_order():
    x_AD = torch.arange(110.0)[:, None]
    stream = TensorStream(x_AD, 10, chunk_size=35, seed=2)
    assert (stream.chunk_size, stream.d_in) == (30, 1)
    epochs = [[stream.chunk(3 * epoch + place).flatten().tolist() for place in range(3)] for epoch in range(2)]
    for chunks in epochs:
        assert [len(chunk) for chunk in chunks] == [30, 30, 30]
        assert len({value for chunk in chunks for value in chunk}) == 90
    assert epochs[0][0] != epochs[1][0]
    assert torch.equal(TensorStream(x_AD, 10, chunk_size=35, seed=2).chunk(4), stream.chunk(4))
    assert not torch.equal(TensorStream(x_AD, 10, chunk_size=35, seed=3).chunk(4), stream.chunk(4))
    assert TensorStream(x_AD, 50, chunk_size=35).chunk_size == 50
    with pytest.raises(ValueError, match=r"acts=\(110,\): the shape must be \(any number, width\)"):
        TensorStream(x_AD.flatten(), 10)


@pytest.mark.parametrize("chunks", [(3, 3), (1, 4), (4, 2)])
def test_only_chunks_that_a_trainer_needs_are_announced(chunks):
    """Each announced chunk is the next one that is made, also for trainers that are further ahead."""
    stream, calls = Stream(), []
    make = stream.chunk
    stream.chunk = lambda index: calls.append(index) or make(index)
    settings = {"batch_size": 32, "chunk_batches": 2, "dead_after_tokens": 64}
    trainers = [Trainer(SAES["topk"](), TrainingConfig(tokens=64 * count, **settings)) for count in chunks]
    for _ in range(2 * chunks[1] - 1 if chunks[0] < chunks[1] else 0):  # the second resumes in its last chunk
        trainers[1].step(make(0)[:32])
    for _, steps in train(trainers, stream, lambda index: calls.append(f"next {index}")):
        for _ in steps:
            pass
    expected = {(3, 3): [0, 1, 2], (1, 4): [0, 3], (4, 2): [0, 1, 2, 3]}[chunks]
    announced = [word for index in expected[1:] for word in (f"next {index}", index)]
    assert calls == [expected[0], *announced]
