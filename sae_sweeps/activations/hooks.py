"""TransformerLens hooks: the layer in a name, the hooks of width d_model, and the hooks that see the same tensor."""

import difflib
import re

from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.runtime.errors import ConfigError

# hooks in a transformer block whose activations have the width of the residual stream, d_model
WIDE_HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


def split_hook(hook: str | None) -> tuple[int, str] | None:
    """Split `blocks.LAYER.NAME` into (LAYER, NAME). Returns None for any other hook and for None."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook or "")
    return (int(found[1]), found[2]) if found else None


def hook_layer(hook: str) -> int:
    """Return the layer LAYER of a hook `blocks.LAYER.NAME`, counted from 0. Raises: ValueError for any other hook."""
    if (parts := split_hook(hook)) is None:
        raise ValueError(f"{hook} is not a hook of a transformer block: these are named blocks.LAYER.NAME")
    return parts[0]


def check_hook(hook: str, info: ModelInfo) -> None:
    """Check that the model has the hook `hook`, with width d_model. Raises: ConfigError, with similar hooks, if not."""
    known = [f"blocks.{layer}.{name}" for layer in range(info.n_layers) for name in WIDE_HOOKS]
    if hook in known:
        return
    near = difflib.get_close_matches(hook, known, n=3, cutoff=0.3)
    parts = split_hook(hook)
    if parts and parts[1] in WIDE_HOOKS:
        problem = f"the model has layers 0 to {info.n_layers - 1}"
        near = [f"blocks.{info.n_layers - 1}.{parts[1]}", *near][:3]
    else:
        problem = f"the model has no hook of this name with width d_model = {info.d_model}"
    near = list(dict.fromkeys(near)) or [f"blocks.{info.n_layers // 2}.hook_resid_pre"]
    raise ConfigError("model.hook", hook, f"{problem}; similar hooks: {', '.join(near)}", f"model.hook={near[0]}")


def is_same_activation(hook: str, other: str) -> bool:
    """Return whether two hooks see the same tensor: the output of a transformer block is the input of the next one."""
    return as_block_output(hook) == as_block_output(other)


def as_block_output(hook: str) -> str:
    """Return the hook on the output of transformer block L - 1 for a hook on the input of block L: the same tensor.

    Any other hook, and the input of block 0, is returned unchanged.
    """
    layer, name = split_hook(hook) or (0, "")
    return f"blocks.{layer - 1}.hook_resid_post" if name == "hook_resid_pre" and layer > 0 else hook
