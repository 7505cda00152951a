"""Run by a Python with eai-sparsify: reconstructs with our SAEs, and saves its own.

with_sae_lens.py describes the files.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder
from sparsify.config import SparseCoderConfig

torch.manual_seed(0)
folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]  # (B, D)
D = x.shape[1]


def save_outputs(path, sae):
    with torch.no_grad():
        found, recon = sae.encode(x), sae(x).sae_out
        acts = torch.zeros(len(x), sae.num_latents).scatter(1, found.top_indices, found.top_acts)
        save_file({"recon": recon.contiguous(), "acts": acts}, f"{path}.safetensors")


for path in sorted((folder / "ours").iterdir()):
    if path.is_dir():
        (coder,) = SparseCoder.load_many(str(path), local=True).values()
        save_outputs(path, coder)

for name, config in (
    ("by-factor", SparseCoderConfig(k=5, expansion_factor=3)),
    ("by-latents", SparseCoderConfig(k=7, num_latents=40, normalize_decoder=False)),
):
    coder = SparseCoder(D, config)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    path = folder / "theirs" / name / "layers.0"
    coder.save_to_disk(path)
    save_outputs(path.parent, coder)
