"""Times dictionary_learning's training steps: one call of its trainers' `update` each, with the library's defaults.

A step is the forward pass, the running threshold (TopK, BatchTopK), the counts of what fired, the loss, the backward
pass, the removal of the decoder gradient's parallel part, the clipping of the gradient's norm to 1, torch's Adam as
the library makes it, the learning-rate schedule, and the decoder's norms set to 1. The step count starts
after the library's warm-ups, so that each step does the full work.

JumpReLU has no auxiliary loss, so `dead` has no effect on it.
"""

import itertools
import sys

import common
import torch
from dictionary_learning.trainers import BatchTopKTrainer, JumpReluTrainer, TopKTrainer
from torch import Tensor

FIRST_STEP, STEPS = 10_000, 100_000  # after every warm-up; the trainers need the total number of steps


@torch.no_grad()
def build(spec: common.Spec, sample_BD: Tensor) -> common.Subject:
    """Return the library's trainer of this architecture, with the dead latents of the spec."""
    shared = {
        "steps": STEPS,
        "activation_dim": spec.d,
        "dict_size": spec.dict_size,
        "layer": 0,
        "lm_name": "none",
        "lr": common.LR,
        "warmup_steps": 0,
        "seed": spec.seed,
        "device": spec.device,
    }
    steps = itertools.count(FIRST_STEP)

    if spec.architecture == "jumprelu":
        trainer = JumpReluTrainer(**shared, target_l0=spec.k)
        sae = trainer.ae
        sae.threshold.fill_(common.threshold_for(spec.k, sample_BD @ sae.W_enc + sae.b_enc))
        encode = sae.encode
    else:
        trainer = (TopKTrainer if spec.architecture == "topk" else BatchTopKTrainer)(**shared, k=spec.k)
        sae = trainer.ae
        dead_F = common.dead_latents(spec)
        sae.encoder.weight[dead_F] *= common.SILENCED
        trainer.num_tokens_since_fired[dead_F] = trainer.dead_feature_threshold

        def encode(x_BD: Tensor) -> Tensor:
            return sae.encode(x_BD, use_threshold=False)

    def dead() -> int:
        return int((trainer.num_tokens_since_fired >= trainer.dead_feature_threshold).sum())

    return common.Subject(lambda x_BD: trainer.update(next(steps), x_BD), encode, dead)


if __name__ == "__main__":
    common.measure(common.parse_spec(sys.argv), "dictionary-learning", build)
