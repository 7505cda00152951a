"""Trains an SAE with dictionary_learning's own trainer on the activations in a file, and saves it.

quality.py runs this script. The library is made for activations whose norm is 1 on average, to which its training
scales them; the biases are scaled back at the end, as its training does. What it starts after 1000 steps, the
threshold for inference and the sparsity penalty, starts within the steps that there are.
"""

import json
import sys
from pathlib import Path

import torch
import training
from dictionary_learning.trainers import BatchTopKTrainer, JumpReluTrainer, TopKTrainer

TRAINERS = {"batchtopk": BatchTopKTrainer, "topk": TopKTrainer, "jumprelu": JumpReluTrainer}


def main() -> None:
    """Train and save the SAE of the spec in argv."""
    spec = training.read(sys.argv)
    steps = spec["steps"]
    if spec["architecture"] == "jumprelu":
        options = {"target_l0": spec["k"], "sparsity_warmup_steps": steps // 4}
    else:
        options = {"k": spec["k"], "threshold_start_step": steps // 2, "threshold_beta": 0.9}
    trainer = TRAINERS[spec["architecture"]](
        steps=steps,
        activation_dim=spec["d"],
        dict_size=spec["dict_size"],
        layer=0,
        lm_name="none",
        lr=spec["lr"],
        warmup_steps=spec["warmup_steps"],
        decay_start=max(spec["warmup_steps"], options.get("sparsity_warmup_steps", 0), steps - spec["decay_steps"]) + 1,
        seed=spec["seed"],
        device="cpu",
        **options,
    )
    scale = spec["d"] ** 0.5  # the norm of activations with mean 0 and standard deviation 1
    for step, x_BD in enumerate(training.read_batches(spec)):
        trainer.update(step, x_BD / scale)
    trainer.ae.scale_biases(scale)
    folder = Path(spec["folder"])
    folder.mkdir(parents=True)
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config}))


if __name__ == "__main__":
    main()
