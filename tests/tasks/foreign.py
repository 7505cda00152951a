"""SAEs of the tiny model as other libraries would have trained and saved them."""

from pathlib import Path

import torch

from sae_sweeps.formats import dictionary_learning, saelens, sparsify
from sae_sweeps.formats.description import Description
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.saes.inference import convert_gate

D = 16  # model width
HOOK = "blocks.0.hook_resid_post"  # the same activations as the tiny sweep's hook, blocks.1.hook_resid_pre


def foreign(architecture: str, dict_size: int = 40, seed: int = 0, k: int = 5) -> InferenceSAE:
    """Return an SAE with random weights; its decoder rows have norms between 0.5 and 3."""
    generator = torch.Generator().manual_seed(seed)
    rows_FD = torch.nn.functional.normalize(torch.randn(dict_size, D, generator=generator), dim=1)
    norm_F1 = 0.5 + 2.5 * torch.rand(dict_size, 1, generator=generator)
    bias_F = 0.3 * torch.randn(dict_size, generator=generator)
    parts = {"W_enc": rows_FD / norm_F1, "W_dec": rows_FD * norm_F1, "b_dec": torch.full((D,), 0.1), "b_enc": bias_F}
    selection = {
        "relu": {"threshold": torch.zeros(dict_size)},
        "topk": {"k": k},
        "batchtopk": {"threshold": torch.full((dict_size,), 0.4)},
        "jumprelu": {"threshold": torch.rand(dict_size, generator=generator)},
        "gated": convert_gate(0.2 * bias_F, bias_F, bias_F.flip(0)),
    }
    return InferenceSAE(architecture, **{**parts, **selection[architecture]}, centers_input=True)


def saved(format: str, folder: Path, sae: InferenceSAE, model: str | None, hook: str = HOOK) -> Path:
    """Save an SAE as the format's own library would. Returns the folder."""
    description = Description(sae.architecture, sae.d_in, sae.dict_size, sae.k or 5, model, hook)
    if format == "dictionary_learning":
        dictionary_learning.write(folder, sae, description)
    elif format == "sparsify":
        sparsify.write(folder, sae, description)
    else:
        saelens.write(folder, sae, {"hook_name": hook} | ({} if model is None else {"model_name": model}))
        config = folder / "cfg.json"
        config.write_text(config.read_text().replace("sae_sweeps", "someone"))
    return folder
