"""Run by a Python with SAELens: reconstructs with our SAEs, and saves its own.

with_sae_lens.py FOLDER: reads FOLDER/x.safetensors and FOLDER/ours/*; writes FOLDER/theirs/*, and beside each SAE
NAME.safetensors with its latents and reconstructions of x.
"""

import sys
from pathlib import Path

import sae_lens
import torch
from safetensors.torch import load_file, save_file

torch.manual_seed(0)
folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]  # (B, D)
D, F = x.shape[1], 48


def save_outputs(path, sae):
    with torch.no_grad():
        save_file({"recon": sae(x).contiguous(), "acts": sae.encode(x).contiguous()}, f"{path}.safetensors")


def disturbed(sae):
    """Move the parameters away from their initial values."""
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter += (0.3 if name == "threshold" else 0.1) * torch.randn_like(parameter)
    return sae


for path in sorted((folder / "ours").iterdir()):
    if path.is_dir():
        save_outputs(path, sae_lens.SAE.load_from_disk(path))

metadata = sae_lens.saes.sae.SAEMetadata(model_name="gpt2", hook_name="blocks.1.hook_resid_pre")
for architecture, more in (
    ("Standard", {}),
    ("Standard", {"normalize_activations": "layer_norm"}),
    ("Standard", {"normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False}),
    ("TopK", {"k": 5}),
    ("TopK", {"k": 5, "rescale_acts_by_decoder_norm": True}),
    ("JumpReLU", {}),
    ("JumpReLU", {"apply_b_dec_to_input": False}),
    ("Gated", {}),
):
    config = getattr(sae_lens, f"{architecture}SAEConfig")(d_in=D, d_sae=F, metadata=metadata, **more)
    sae = disturbed(getattr(sae_lens, f"{architecture}SAE")(config))
    path = folder / "theirs" / "-".join([architecture, *map(str, more.values())])
    sae.save_model(path)
    save_outputs(path, sae)

for architecture, more in (
    ("TopK", {"k": 5}),
    ("BatchTopK", {"k": 5.0}),
    ("MatryoshkaBatchTopK", {"k": 5.0, "matryoshka_widths": [16, F]}),
):
    config = getattr(sae_lens, f"{architecture}TrainingSAEConfig")(d_in=D, d_sae=F, metadata=metadata, **more)
    sae = disturbed(getattr(sae_lens, f"{architecture}TrainingSAE")(config))
    if architecture != "TopK":
        sae.topk_threshold.fill_(0.6)
    trained, resumable = (folder / "theirs" / f"{architecture}-{kind}" for kind in ("trained", "resumable"))
    sae.save_model(resumable)
    sae.save_inference_model(trained)
    as_used = sae_lens.SAE.load_from_disk(trained)
    save_outputs(trained, as_used)
    save_outputs(resumable, as_used)
