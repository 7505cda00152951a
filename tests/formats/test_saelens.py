"""Saved SAEs compute the same under SAELens 6: its formulas, written out here, applied to the saved files."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from sae_sweeps.formats import saelens
from sae_sweeps.saes import BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE

D, F = 8, 24


def trained(sae):
    """Move the parameters away from their initial values, as training would."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter += (
                0.1 * torch.randn_like(parameter).abs() if name == "threshold" else 0.1 * torch.randn_like(parameter)
            )
    if isinstance(sae, BatchTopKSAE):
        sae.threshold.fill_(0.7)
    return sae


SAES = {
    "topk": lambda **options: trained(TopKSAE(D, F, 3, **options)),
    "batchtopk": lambda **options: trained(BatchTopKSAE(D, F, 3, **options)),
    "matryoshka": lambda **options: trained(MatryoshkaSAE(D, F, 3, **options)),
    "relu": lambda **options: trained(ReLUSAE(D, F, sparsity_coefficient=0.1, **options)),
    "gated": lambda **options: trained(GatedSAE(D, F, sparsity_coefficient=0.1, **options)),
    "jumprelu": lambda **options: trained(
        JumpReLUSAE(D, F, sparsity_coefficient=0.1, initial_threshold=0.5, **options)
    ),
    "jumprelu to an l0": lambda **options: trained(JumpReLUSAE(D, F, target_l0=5, **options)),
}


def as_saelens_would(folder, x_BD):
    """Encode and decode by SAELens' documented rules, from cfg.json and the weights."""
    cfg, w = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
    mean_B1, std_B1 = torch.zeros(1), torch.ones(1)
    if cfg["normalize_activations"] == "layer_norm":
        mean_B1 = x_BD.mean(-1, keepdim=True)
        std_B1 = (x_BD - mean_B1).std(-1, keepdim=True)
        x_BD = (x_BD - mean_B1) / (std_B1 + 1e-5)
    product_BF = (x_BD - cfg["apply_b_dec_to_input"] * w["b_dec"]) @ w["W_enc"]
    pre_BF = product_BF + w["b_gate" if cfg["architecture"] == "gated" else "b_enc"]
    if cfg["architecture"] == "topk":
        top = torch.topk(pre_BF, cfg["k"], dim=-1)
        acts_BF = torch.zeros_like(pre_BF).scatter(-1, top.indices, top.values.relu())
    elif cfg["architecture"] == "gated":
        acts_BF = (pre_BF > 0) * (product_BF * w["r_mag"].exp() + w["b_mag"]).relu()
    elif cfg["architecture"] == "standard":
        acts_BF = pre_BF.relu()
    else:
        assert cfg["architecture"] == "jumprelu"
        acts_BF = pre_BF.relu() * (pre_BF > w["threshold"])
    return acts_BF, (acts_BF @ w["W_dec"] + w["b_dec"]) * std_B1 + mean_B1


@pytest.mark.parametrize("normalize_input", [True, False])
@pytest.mark.parametrize("architecture", SAES)
def test_saelens_formulas_reconstruct_the_same(architecture, normalize_input, tmp_path):
    sae = SAES[architecture](normalize_input=normalize_input)
    saelens.write(tmp_path, sae.for_inference(), {"model_name": "m", "hook_name": "h"})
    x_BD = 2 * torch.randn(50, D) + 1
    acts_BF, recon_BD = as_saelens_would(tmp_path, x_BD)
    assert_close(sae.encode(x_BD), acts_BF, rtol=1e-5, atol=1e-5)
    assert_close(sae(x_BD), recon_BD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", SAES)
def test_a_written_sae_is_read_back_the_same(architecture, tmp_path):
    sae = SAES[architecture]()
    saelens.write(tmp_path, sae.for_inference(), {})
    again = saelens.read(tmp_path)
    assert again.architecture == sae.architecture
    x_BD = torch.randn(20, D)
    assert torch.equal(again(x_BD), sae(x_BD))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_folders_without_an_sae_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file cfg\.json"):
        saelens.read(tmp_path)
    (tmp_path / "cfg.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object with the settings of an SAE"):
        saelens.read(tmp_path)
    (tmp_path / "cfg.json").write_text('{"architecture": "topk"}')
    with pytest.raises(ValueError, match="has no d_in, d_sae"):
        saelens.read(tmp_path)
