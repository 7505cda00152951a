"""Times SAELens' training steps: one call of its trainer's `step` each, with the library's defaults.

A step is the forward pass, the loss, the counts of what fired, the backward pass, the clipping of the gradient's norm
to 1, torch's Adam as SAELens makes it, and the learning-rate schedule. `fit` keeps the result of a step during the
next one; here it is dropped at once, which lowers the peak of the memory by two matrices of (batch, dict_size).

TopK and BatchTopK have the auxiliary loss on dead latents. JumpReLU has none unless its pre-activation loss is
enabled, which is off by default and stays off here, so `dead` has no effect on it.
"""

import sys

import common
import torch
from sae_lens import SAETrainer, TrainingSAE
from sae_lens.config import SAETrainerConfig
from torch import Tensor


@torch.no_grad()
def build(spec: common.Spec, sample_BD: Tensor) -> common.Subject:
    """Return SAELens' trainer of this architecture, with the dead latents of the spec."""
    options = {} if spec.architecture == "jumprelu" else {"k": spec.k}
    make_config = TrainingSAE.get_sae_config_class_for_architecture(spec.architecture)
    make_sae = TrainingSAE.get_sae_class_for_architecture(spec.architecture)
    sae = make_sae(make_config(d_in=spec.d, d_sae=spec.dict_size, device=spec.device, **options))
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=spec.batch,
        lr=common.LR,
        lr_end=common.LR,
        device=spec.device,
    )
    trainer = SAETrainer(config, sae, data_provider=iter(()))

    if spec.architecture == "jumprelu":
        _, pre_BF = sae.encode_with_hidden_pre(sample_BD)
        sae.threshold.fill_(common.threshold_for(spec.k, pre_BF))
    elif spec.dead:
        dead_F = common.dead_latents(spec)
        sae.W_enc[:, dead_F] *= common.SILENCED
        trainer.n_forward_passes_since_fired[dead_F] = 10.0 * config.dead_feature_window

    def step(x_BD: Tensor) -> None:
        trainer.step(x_BD)
        trainer.n_training_steps += 1

    return common.Subject(step, sae.encode, dead=lambda: int(trainer.dead_neurons.sum()))


if __name__ == "__main__":
    common.measure(common.parse_spec(sys.argv), "sae-lens", build)
