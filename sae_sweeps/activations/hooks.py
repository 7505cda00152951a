"""TransformerLens hooks: which can be read, where they lie, which are the same tensor."""

import difflib
import re

from sae_sweeps.activations.model_info import ModelFacts
from sae_sweeps.runtime.errors import ConfigError

# the points of a transformer block at which the activation has the model's width
WIDE_HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


def check_hook(hook: str, facts: ModelFacts) -> None:
    """Raises: ConfigError, listing near names, if the model has no such hook of width d_model."""
    known = [f"blocks.{layer}.{place}" for layer in range(facts.n_layers) for place in WIDE_HOOKS]
    if hook in known:
        return
    near = difflib.get_close_matches(hook, known, n=3, cutoff=0.3)
    match = re.fullmatch(r"blocks\.(\d+)\.(\w+)", hook)
    if match and match[2] in WIDE_HOOKS:
        problem = f"the model has layers 0 to {facts.n_layers - 1}"
        near = [f"blocks.{facts.n_layers - 1}.{match[2]}", *near][:3]
    else:
        problem = "the model has no such hook"
    near = list(dict.fromkeys(near)) or [f"blocks.{facts.n_layers // 2}.hook_resid_pre"]
    raise ConfigError("model.hook", hook, f"{problem}; near names: {', '.join(near)}", f"model.hook={near[0]}")


def hook_layer(hook: str) -> int:
    return int(hook.split(".")[1])


def is_same_activation(hook: str, other: str) -> bool:
    """Whether two hooks see the same: what leaves a block enters the next."""
    return as_block_output(hook) == as_block_output(other)


def as_block_output(hook: str) -> str:
    """A hook on what enters a block as one on what leaves the block before it; others as they are."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", hook)
    return f"blocks.{int(found[1]) - 1}.hook_resid_post" if found and int(found[1]) > 0 else hook
