"""Packs: which points share a stream, how a pack is split, and that training in a pack changes no weights."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import TrainingConfig
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.memory import pack_bytes, point_bytes, shared_bytes
from sae_sweeps.sweep.packs import split_by_files, split_into_packs, split_to_fit
from sae_sweeps.training.trainer import Trainer, train
from tests.conftest import composed
from tests.training.test_trainer import CONFIG, SAES, Stream

FACTS = ModelInfo(n_layers=6, d_model=192, vocabulary=8192, context=512)


def point(*overrides: str) -> Point:
    return Point(composed(*overrides), Path("outputs/sweep") / " ".join(overrides or ["plain"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["sae=topk"],
        ["dict_size=6144", "k=16"],
        ["seed=3"],
        ["training.tokens=65536"],
        ["training.lr=1e-3"],
        ["training.batch_size=2048", "training.chunk_batches=16"],  # the same chunk in other batches
        ["evaluation.tokens=1000"],
        ["seed=1", "training.precision=bfloat16"],
        ["sae=jumprelu", "sae.sparsity_coefficient=0.01"],
        ["model.hook=blocks.2.hook_resid_pre"],
    ],
)
def test_points_that_differ_in_the_sae_share_a_stream(overrides):
    assert len(split_into_packs([point(), point(*overrides)])) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.seed=1"],
        ["dataset.seq_len=64"],
        ["training.batch_size=2048"],
        ["model.dtype=bfloat16"],
        ["model.batch_sequences=32"],  # on a GPU it is not the default
        ["device=cpu"],
    ],
)
def test_points_with_different_streams_are_in_different_packs(overrides):
    first, other, third = point(), point(*overrides), point("seed=1")
    assert split_into_packs([first, other, third]) == [[first, third], [other]]


def test_a_pack_has_at_most_as_many_points_as_allowed():
    points = [point(f"seed={seed}") for seed in range(5)]
    assert [len(pack) for pack in split_into_packs(points, 2)] == [2, 2, 1]


def test_the_points_of_a_hook_stay_together():
    hooks = ["blocks.3.hook_resid_pre", "blocks.1.hook_resid_pre"]
    points = [point(f"seed={seed}", f"model.hook={hook}") for seed in range(3) for hook in hooks]
    packs = split_into_packs(points, 3)
    assert [[each.config.model.hook for each in pack] for pack in packs] == [[hook] * 3 for hook in hooks]
    assert [[each.config.seed for each in pack] for pack in packs] == [[0, 1, 2]] * 2


def test_each_hook_of_a_pack_takes_memory_for_its_activations():
    hooks = [f"model.hook=blocks.{layer}.hook_resid_pre" for layer in (1, 2, 3)]
    points = [point(hook, f"seed={seed}") for hook in hooks for seed in range(2)]
    config = points[0].config
    chunk = config.training.batch_size * config.training.chunk_batches
    another = 4 * 192 * (chunk + config.evaluation.tokens)
    one, two, three = (pack_bytes(points[:count], FACTS, "cpu") for count in (2, 4, 6))
    assert two - one == three - two == pytest.approx(another + 2 * point_bytes(config, 192))
    assert split_to_fit(points, FACTS, "cpu", three) == [points]
    assert [len(pack) for pack in split_to_fit(points, FACTS, "cpu", three - 1)] == [5, 1]
    assert [len(pack) for pack in split_to_fit(points, FACTS, "cpu", two - point_bytes(config, 192) - 1)] == [2, 2, 2]


def test_a_pack_that_does_not_fit_is_split_and_logged(caplog):
    caplog.set_level(logging.INFO)
    points = [point(f"seed={seed}", "dict_size=6144") for seed in range(5)]
    shared, each = shared_bytes(points[0].config, FACTS, "cpu"), point_bytes(points[0].config, 192)
    assert split_to_fit(points, FACTS, "cpu", shared + 5 * each) == [points]
    assert not caplog.records
    assert [len(pack) for pack in split_to_fit(points, FACTS, "cpu", shared + 2.5 * each)] == [2, 2, 1]
    assert (
        "GiB of free memory. It is split into packs of 2 + 2 + 1 points, so the language model runs 3 times"
        in caplog.text
    )
    alone = split_to_fit(points, FACTS, "cpu", 0)
    assert [len(pack) for pack in alone] == [1] * 5  # a single point is always tried


def test_the_memory_of_a_point_is_its_weights_gradients_and_moments():
    trainer = Trainer(SAES["topk"](), CONFIG)
    trainer.step(Stream().chunk(0)[:16])
    sizes = [tensor.nbytes for name, tensor in trainer.state().items() if "W_" in name and ".step" not in name]
    sizes += [trainer.sae.W_enc.grad.nbytes, trainer.sae.W_dec.grad.nbytes]
    assert sum(sizes) == point_bytes(replace(composed(), dict_size=trainer.sae.dict_size), trainer.sae.d_in)


def take_all(trainers):
    for _, steps in train(trainers, Stream()):
        for _ in steps:
            pass


@pytest.mark.parametrize("architecture", SAES)
def test_weights_are_byte_identical_in_any_pack_and_alone(architecture):
    alone = Trainer(SAES[architecture](), CONFIG)
    take_all([alone])
    in_pack = Trainer(SAES[architecture](), CONFIG)
    others = [Trainer(make(), CONFIG) for make in SAES.values()]
    take_all([others[0], in_pack, *others[1:]])
    for name, tensor in alone.state().items():
        assert torch.equal(in_pack.state()[name], tensor), name


def test_points_at_different_steps_catch_up_and_skip_unneeded_chunks():
    class Counting(Stream):
        def __init__(self):
            self.asked = []

        def chunk(self, index):
            self.asked.append(index)
            return super().chunk(index)

    expected = Trainer(SAES["topk"](), CONFIG)
    take_all([expected])
    ahead, behind = Trainer(SAES["topk"](), CONFIG), Trainer(SAES["topk"](), CONFIG)
    for trainer, until in ((ahead, 18), (behind, 9)):
        for _, steps in train([trainer], Stream()):
            for _ in steps:
                if trainer.steps_done == until:
                    trainer.stopped = True
                    break
        trainer.stopped = False
    stream = Counting()
    taken = {ahead: 0, behind: 0}
    for trainer, steps in train([ahead, behind], stream):
        taken[trainer] += len(list(steps))
    assert taken == {ahead: 23 - 18, behind: 23 - 9}
    assert stream.asked == [2, 3, 4, 5]  # 4 steps each; 9 steps reach into chunk 2
    for trainer in (ahead, behind):
        assert torch.equal(trainer.sae.W_dec, expected.sae.W_dec)


def test_lengths_and_batch_sizes_may_differ_in_a_pack():
    short = Trainer(SAES["topk"](), TrainingConfig(tokens=5 * 16, batch_size=16, chunk_batches=4, lr=1e-2))
    wide = Trainer(SAES["topk"](), TrainingConfig(tokens=6 * 32, batch_size=32, chunk_batches=2, lr=1e-2))
    take_all([short, wide])
    assert (short.steps_done, wide.steps_done) == (5, 6)
    for trainer in (short, wide):
        alone = Trainer(SAES["topk"](), trainer.config)
        take_all([alone])
        assert torch.equal(alone.sae.W_enc, trainer.sae.W_enc)


def test_a_stopped_point_does_not_hold_up_the_others():
    stopped, other = Trainer(SAES["topk"](), CONFIG), Trainer(SAES["batchtopk"](), CONFIG)
    for trainer, steps in train([stopped, other], Stream()):
        if trainer is stopped and trainer.steps_done == 4:
            trainer.stopped = True
            continue
        for _ in steps:
            pass
    assert (stopped.steps_done, other.steps_done) == (4, 23)


def test_a_pack_is_split_by_the_files_that_its_points_keep_open(caplog):
    points = [point(f"seed={seed}", f"tracking={'off' if seed < 4 else 'offline'}") for seed in range(8)]
    assert split_by_files(points, 20) == [points]
    assert not caplog.records
    with caplog.at_level(logging.INFO):
        assert split_by_files(points, 8) == [points[:5], points[5:7], points[7:]]
    assert "8 points is split into packs of 5 + 2 + 1 points, because only 8 more files can be open" in caplog.text
    assert split_by_files(points[:2], 0) == [points[:1], points[1:2]]
