"""Trains an SAE with SAELens' own trainer on the activations in a file, and saves it. quality.py runs this script.

The decoder bias starts as the mean of the first batch, as with all other libraries here: from zero, SAELens' default,
most latents die where the mean of the activations is large.
"""

import sys

import training
from sae_lens import SAETrainer, TrainingSAE
from sae_lens.config import SAETrainerConfig


def main() -> None:
    """Train and save the SAE of the spec in argv."""
    spec = training.read(sys.argv)
    make_config = TrainingSAE.get_sae_config_class_for_architecture(spec["architecture"])
    make_sae = TrainingSAE.get_sae_class_for_architecture(spec["architecture"])
    sae = make_sae(make_config(d_in=spec["d"], d_sae=spec["dict_size"], k=spec["k"]))
    sae.b_dec.data = next(training.read_batches(spec)).mean(0)
    config = SAETrainerConfig(
        total_training_samples=spec["steps"] * spec["batch"],
        train_batch_size_samples=spec["batch"],
        lr=spec["lr"],
        lr_end=spec["lr"] / 10,  # the value that its runner sets; only a cosine schedule uses it
        lr_warm_up_steps=spec["warmup_steps"],
        lr_decay_steps=spec["decay_steps"],
    )
    SAETrainer(config, sae, data_provider=training.read_batches(spec)).fit()
    sae.save_inference_model(spec["folder"])


if __name__ == "__main__":
    main()
