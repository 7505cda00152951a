"""Trains an SAE with SAELens' own trainer on the activations in a file, and saves it. quality.py runs this script."""

import json
import sys

import torch
from sae_lens import SAETrainer, TrainingSAE
from sae_lens.config import SAETrainerConfig
from safetensors.torch import load_file

spec = json.loads(sys.argv[1])
torch.manual_seed(spec["seed"])
activations = load_file(spec["activations"])["x"]
make_config = TrainingSAE.get_sae_config_class_for_architecture(spec["architecture"])
make_sae = TrainingSAE.get_sae_class_for_architecture(spec["architecture"])
sae = make_sae(make_config(d_in=activations.shape[1], d_sae=spec["dict_size"], k=spec["k"]))
config = SAETrainerConfig(
    total_training_samples=len(activations),
    train_batch_size_samples=spec["batch"],
    lr=spec["lr"],
    lr_end=spec["lr"] / 10,  # the value that its runner sets; a constant schedule ignores it
    lr_warm_up_steps=spec["warmup_steps"],
    lr_decay_steps=spec["decay_steps"],
)
SAETrainer(config, sae, data_provider=iter(activations.split(spec["batch"]))).fit()
sae.save_inference_model(spec["folder"])
