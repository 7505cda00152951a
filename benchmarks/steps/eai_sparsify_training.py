"""Trains a TopK SAE with sparsify (EleutherAI) on the activations in a file, and saves it. quality.py runs this script.

The library's trainer makes its steps inside a loop over a language model, so they are written out here: the decoder
bias starts as the mean of the first batch; then the steps of `eai_sparsify.py`, with the optimizer `signum`, the
library's default, or `adam`.
"""

import sys

import eai_sparsify
import torch
import training


def main() -> None:
    """Train and save the SAE of the spec in argv."""
    spec = training.read(sys.argv)
    sparsify = eai_sparsify.load("cpu")
    sae = sparsify.SparseCoder(
        spec["d"], sparsify.SparseCoderConfig(num_latents=spec["dict_size"], k=spec["k"]), dtype=torch.float32
    )
    forward = sparsify.SparseCoder.forward.__wrapped__  # without the decorator that switches to bfloat16
    if spec["optimizer"] == "signum":
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD

        optimizer = ScheduleFreeWrapper(SignSGD(sae.parameters(), lr=spec["lr"]), momentum=0.95)  # needs no schedule
        optimizer.train()
        scheduler = None
    else:
        optimizer = torch.optim.Adam(sae.parameters(), lr=spec["lr"])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, training.schedule(spec))
    for step, x_BD in enumerate(training.read_batches(spec)):
        if step == 0:
            sae.b_dec.data = x_BD.mean(0)
        sae.set_decoder_norm_to_unit_norm()
        forward(sae, x_BD).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
    if spec["optimizer"] == "signum":
        optimizer.eval()  # the averaged weights
    sae.save_to_disk(spec["folder"])


if __name__ == "__main__":
    main()
