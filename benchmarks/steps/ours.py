"""Times this project's training steps: one call of `Trainer.step` each.

A step is the normalisation of the activations, the encoder matmul, the selection of the active latents, the loss and
its gradients, the removal of the decoder gradient's parallel part, torch's fused Adam, the decoder's norms set to 1,
and the counts of active latents.

JumpReLU has no auxiliary loss, so `dead` has no effect on it.
"""

import sys

import common
import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.saes import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE
from sae_sweeps.training.trainer import Trainer

DEAD_AFTER = 10**12  # activations; so many that no latent changes between alive and dead
SPARSITY_COEFFICIENT = 1e-3


def build_sae(spec: common.Spec) -> SAE:
    """Return an untrained SAE of the spec's architecture and sizes."""
    if spec.architecture == "jumprelu":
        return JumpReLUSAE(spec.d, spec.dict_size, sparsity_coefficient=SPARSITY_COEFFICIENT, seed=spec.seed)
    make_sae = TopKSAE if spec.architecture == "topk" else BatchTopKSAE
    return make_sae(spec.d, spec.dict_size, spec.k, seed=spec.seed)


@torch.no_grad()
def build(spec: common.Spec, sample_BD: Tensor) -> common.Subject:
    """Return an SAE and its trainer, with the dead latents of the spec."""
    sae = build_sae(spec).to(spec.device)
    config = TrainingConfig(
        tokens=10**9, batch_size=spec.batch, lr=common.LR, dead_after_tokens=DEAD_AFTER, precision=spec.precision
    )
    trainer = Trainer(sae, config)

    def to_input(x_BD: Tensor) -> Tensor:
        return sae.encoder_input(sae.normalize(x_BD).x_BD)

    if isinstance(sae, JumpReLUSAE):
        pre_BF = sae.product(to_input(sample_BD)).to_dense()
        sae.threshold.fill_(common.threshold_for(spec.k, pre_BF))
    elif spec.dead:
        dead_F = common.dead_latents(spec)
        sae.W_enc[dead_F] *= common.SILENCED
        trainer.idle_tokens_F[dead_F] = DEAD_AFTER

    def encode(x_BD: Tensor) -> Tensor:
        return sae.keep(sae.product(to_input(x_BD), spec.precision)).to_dense()

    return common.Subject(trainer.step, encode, dead=lambda: int(trainer.dead_F.sum()))


if __name__ == "__main__":
    common.measure(common.parse_spec(sys.argv), "sae-sweeps", build)
