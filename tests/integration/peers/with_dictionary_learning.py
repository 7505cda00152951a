"""Run by a Python with dictionary_learning: reconstructs with our SAEs, and saves SAEs of its own trainers.

with_sae_lens.py describes the files.
"""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from dictionary_learning import trainers
from dictionary_learning.dictionary import AutoEncoderNew
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from safetensors.torch import load_file, save_file

# imported by the file of load_dictionary, but not needed for it
sys.modules |= {"datasets": SimpleNamespace(load_dataset=None), "zstandard": SimpleNamespace()}
load_dictionary = importlib.import_module("dictionary_learning.utils").load_dictionary

torch.manual_seed(0)
folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]  # (B, D)
D, F = x.shape[1], 48


def save_outputs(path, sae):
    with torch.no_grad():
        save_file({"recon": sae(x).contiguous(), "acts": sae.encode(x).contiguous()}, f"{path}.safetensors")


for path in sorted((folder / "ours").iterdir()):
    if path.is_dir():
        sae, config = load_dictionary(str(path), "cpu")
        save_outputs(path, sae)

shared = {"steps": 3000, "activation_dim": D, "dict_size": F, "layer": 1, "lm_name": "owner/model", "device": "cpu"}
with_k = {**shared, "k": 5, "threshold_start_step": 0}
for trainer in (
    trainers.StandardTrainer(**shared),
    trainers.GatedSAETrainer(**shared),
    trainers.TopKTrainer(**with_k),
    trainers.BatchTopKTrainer(**with_k),
    MatryoshkaBatchTopKTrainer(**with_k, group_fractions=[0.25, 0.75]),
    trainers.JumpReluTrainer(**shared),
):
    for step in range(1, 4):
        trainer.update(step, x)
    sae, config = trainer.ae, trainer.config
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter += (0.3 if name == "threshold" else 0.1) * torch.randn_like(parameter)
    path = folder / "theirs" / type(sae).__name__
    path.mkdir(parents=True)
    torch.save({name: value.cpu() for name, value in sae.state_dict().items()}, path / "ae.pt")
    (path / "config.json").write_text(json.dumps({"trainer": config}))
    save_outputs(path, sae)

sae, path = AutoEncoderNew(D, F), folder / "theirs" / "AutoEncoderNew"
path.mkdir()
with torch.no_grad():
    for parameter in sae.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
torch.save(sae.state_dict(), path / "ae.pt")
(path / "config.json").write_text(json.dumps({"trainer": {**trainer.config, "dict_class": "AutoEncoderNew"}}))
save_outputs(path, sae)
