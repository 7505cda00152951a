"""Activations, cross-entropy and the logit lens of many architectures, compared with transformers' own.

transformers' values are taken with plain forward hooks of PyTorch, so TransformerLens has no part in them.
"""

import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from sae_sweeps.activations.architectures import WIDE_HOOKS
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError
from tests.activations.tiny_models import LAYERS, SHAPES, VOCABULARY, D, write_model

TOKENS_NS = torch.randint(0, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1))
DIRECTIONS_ND = torch.randn(4, D, generator=torch.Generator().manual_seed(2))

# hooks that an architecture has by its config.json, but that do not work in TransformerLens; refused after loading
REFUSED = {
    "opt-350m": ("hook_resid_mid",),
    "opt-post-norm": WIDE_HOOKS,
    "openai-gpt": ("hook_resid_pre", "hook_resid_post"),
}


class Reference:
    """What transformers computes in block 1: inputs and outputs of all modules, its logits and their tail."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model.eval()
        lists = [part for part in self.model.modules() if isinstance(part, torch.nn.ModuleList)]
        self.block = next(part for part in lists if len(part) == LAYERS)[1]
        self.inputs, self.outputs = [], []
        handles = [part.register_forward_hook(self._keep, with_kwargs=True) for part in self.block.modules()]
        with torch.no_grad():
            self.logits_NSV = self.model(TOKENS_NS).logits
        for handle in handles:
            handle.remove()

    def _keep(self, part, args, options, out):
        before = next((value for value in (*args, *options.values()) if isinstance(value, torch.Tensor)), None)
        after = out[0] if isinstance(out, tuple) else out
        for kept, value in ((self.inputs, before), (self.outputs, after)):
            if isinstance(value, torch.Tensor) and value.numel() == TOKENS_NS.numel() * D:
                kept.append((part, value.reshape(*TOKENS_NS.shape, D).clone()))

    def side(self, kept):
        return next(value for part, value in kept if part is self.block)

    def has(self, acts_NSD, scale=1.0):
        return any(is_close(acts_NSD, scale * value) for _, value in self.inputs + self.outputs)

    def lens(self):
        rows = torch.cat([DIRECTIONS_ND, torch.zeros(1, D)])[None]

        def put(part, args, out):
            return (rows, *out[1:]) if isinstance(out, tuple) else rows

        handle = self.block.register_forward_hook(put)
        with torch.no_grad():
            logits_NV = self.model(TOKENS_NS[:1, :5]).logits[0]
        handle.remove()
        return logits_NV[:-1] - logits_NV[-1]


def is_close(found, expected, allowed=1e-5):
    return bool((found - expected).abs().max() <= allowed * expected.abs().max())


def load(folder, place):
    config = ModelConfig(name=str(folder), hook=f"blocks.1.{place}", dtype="float32", batch_sequences=2)
    return LanguageModel(config, torch.device("cpu"))


def check_cross_entropy(model, acts_NSD, logits_NSV):
    target = TOKENS_NS[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(logits_NSV[:, :-1].flatten(0, 1), target).item()
    assert model.cross_entropy(TOKENS_NS) == pytest.approx(expected, rel=1e-5)
    same = model.cross_entropy(TOKENS_NS, lambda acts, first: acts_NSD[first : first + len(acts)])
    assert same == pytest.approx(expected, rel=1e-5)
    assert model.cross_entropy(TOKENS_NS, lambda acts, first: acts + DIRECTIONS_ND[0]) != expected


@pytest.mark.parametrize("name", SHAPES)
def test_every_hook_that_is_offered_gives_transformers_activations(name, tmp_path):
    warnings.filterwarnings("ignore")
    folder = write_model(tmp_path, name)
    reference = Reference(folder)
    offered = read_model_info(str(folder)).hooks
    found, model = {}, None
    for place in offered:
        if place in REFUSED.get(name, ()):
            with pytest.raises(ConfigError, match=r"model\.(name|hook)=.*TransformerLens|hook was called"):
                load(folder, place)
            continue
        model = model.at(f"blocks.1.{place}") if model else load(folder, place)
        found[place] = model.activations(TOKENS_NS)
        check_cross_entropy(model, found[place], reference.logits_NSV)
    for place, expected in (("hook_resid_pre", reference.inputs), ("hook_resid_post", reference.outputs)):
        assert place not in found or is_close(found[place], reference.side(expected)), place
    scale = getattr(reference.model.config, "residual_multiplier", 1.0)
    for place in ("hook_resid_mid", "hook_attn_out", "hook_mlp_out"):
        factor = 1.0 if place == "hook_resid_mid" else scale
        assert place not in found or reference.has(found[place], factor), place
    if name not in REFUSED:
        check_sums(found)
        assert is_close(model.logit_lens(DIRECTIONS_ND), reference.lens(), 1e-4)


def check_sums(found):
    """The parts that attention and MLP write add up to the residual stream."""
    pre, mid, post, attn, mlp = (found.get(place) for place in WIDE_HOOKS)
    if mid is not None:
        assert is_close(pre + attn, mid)
        assert is_close(mid + mlp, post)
    elif attn is not None:
        assert is_close(pre + attn + mlp, post)


@pytest.mark.parametrize("name", ["gpt_neox", "mamba", "cohere"])
def test_a_hook_that_the_architecture_lacks_is_refused_with_hooks_that_it_has(name, tmp_path):
    folder = write_model(tmp_path, name)
    assert "hook_resid_mid" not in read_model_info(str(folder)).hooks
    with pytest.raises(ConfigError, match=r"no such hook.*similar hooks: blocks\.1\.hook_resid_p"):
        load(folder, "hook_resid_mid")


def test_the_logit_lens_of_opt_350m_has_its_projection_and_no_final_norm(tmp_path):
    folder = write_model(tmp_path, "opt-350m")
    found = load(folder, "hook_resid_pre").logit_lens(DIRECTIONS_ND)
    assert is_close(found, Reference(folder).lens(), 1e-4)
