"""Times training steps of sparsify (EleutherAI, TopK only): its SparseCoder, with the steps of its trainer.

The library's trainer makes its steps inside a loop over a language model, so they are written out here: the decoder's
norms set to 1, the forward pass, the loss, the backward pass, the removal of the decoder gradient's parallel part,
Adam, and the counts of what fired. The encoder's gradient and the decoder go through the library's sparse code, which
on a CPU is torch's `embedding_bag`, and its Triton kernel on a CUDA device.

Of its optimizers (signum, muon, adam) this takes adam: torch's where bitsandbytes is not installed, and torch's fused
implementation, the fastest on a CPU. Its auxiliary loss is off by default; where latents are dead it has the weight
1/32. On a CUDA device the library computes in bfloat16 by default; here it computes in float32, as the other
libraries do.
"""

import contextlib
import importlib
import os
import sys
from types import ModuleType

import common
import torch
from torch import Tensor

AUX_WEIGHT = 1 / 32


def load(device: str) -> ModuleType:
    """Import the library. It chooses its decoder at import, and prints the choice."""
    if device == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    with contextlib.redirect_stdout(sys.stderr):
        return importlib.import_module("sparsify")


@torch.no_grad()
def build(sparsify: ModuleType, spec: common.Spec) -> common.Subject:
    """Return the library's SAE and a training step, with the dead latents of the spec."""
    config = sparsify.SparseCoderConfig(num_latents=spec.dict_size, k=spec.k)
    sae = sparsify.SparseCoder(spec.d, config, device=spec.device, dtype=torch.float32)
    forward = sparsify.SparseCoder.forward.__wrapped__  # without the decorator that switches to bfloat16
    optimizer = torch.optim.Adam(sae.parameters(), lr=common.LR, fused=True)

    dead_after = sparsify.TrainConfig(config).dead_feature_threshold
    idle_tokens_F = torch.zeros(spec.dict_size, dtype=torch.int64, device=spec.device)
    dead_F = common.dead_latents(spec)
    sae.encoder.weight[dead_F] *= common.SILENCED
    idle_tokens_F[dead_F] = dead_after + 1

    def step(x_BD: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        out = forward(sae, x_BD, dead_mask=idle_tokens_F > dead_after if spec.dead else None)
        (out.fvu + AUX_WEIGHT * out.auxk_loss).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            idle_tokens_F.add_(len(x_BD))
            idle_tokens_F[out.latent_indices.flatten()] = 0

    def encode(x_BD: Tensor) -> Tensor:
        top_acts_BK, top_indices_BK, pre_BF = sae.encode(x_BD)
        return torch.zeros_like(pre_BF).scatter_(1, top_indices_BK, top_acts_BK)

    return common.Subject(step, encode, dead=lambda: int((idle_tokens_F > dead_after).sum()))


def main() -> None:
    """Time the steps of the spec in argv."""
    spec = common.parse_spec(sys.argv, supported=("topk",))
    sparsify = load(spec.device)
    common.measure(spec, "eai-sparsify", lambda spec, _: build(sparsify, spec))


if __name__ == "__main__":
    main()
