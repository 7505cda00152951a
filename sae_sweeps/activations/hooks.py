"""TransformerLens hooks: the layer in a name, the hooks of width d_model, and the hooks that see the same tensor."""

import difflib
import re
from collections.abc import Sequence

from sae_sweeps.activations.architectures import WIDE_HOOKS
from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.runtime.errors import ConfigError


def split_hook(hook: str | None) -> tuple[int, str] | None:
    """Split `blocks.LAYER.NAME` into (LAYER, NAME). Returns None for any other hook and for None."""
    found = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", hook or "")
    return (int(found[1]), found[2]) if found else None


def hook_layer(hook: str) -> int:
    """Return the layer LAYER of a hook `blocks.LAYER.NAME`, counted from 0. Raises: ValueError for any other hook."""
    if (parts := split_hook(hook)) is None:
        raise ValueError(f"{hook} is not a hook of a transformer block: these are named blocks.LAYER.NAME")
    return parts[0]


def check_hook(hook: str, info: ModelInfo) -> None:
    """Check that the model has the hook `hook`, with width d_model. Raises: ConfigError, with similar hooks, if not."""
    known = [f"blocks.{layer}.{name}" for layer in range(info.n_layers) for name in info.hooks]
    if hook in known:
        return
    _, name = split_hook(hook) or (0, "")
    if name in info.hooks:
        problem = f"the model has layers 0 to {info.n_layers - 1}"
    elif name in WIDE_HOOKS:
        problem = f"the blocks of this architecture have only {', '.join(info.hooks)}"
    else:
        problem = f"the model has no hook of this name with width d_model = {info.d_model}"
    raise unknown_hook_error(hook, known, problem)


def unknown_hook_error(hook: str, known: Sequence[str], problem: str) -> ConfigError:
    """Return the error to raise for a hook that cannot be used, with similar hooks out of those in `known`.

    They are of the layer that the hook names; of the last one, if it names a layer that the model does not have.
    """
    candidates = list(known)
    if parts := split_hook(hook):
        layers = [layer for layer, _ in filter(None, map(split_hook, known))]
        layer = parts[0] if parts[0] in layers else max(layers)
        candidates = [name for name in known if hook_layer(name) == layer]
    similar = difflib.get_close_matches(hook, candidates, n=3, cutoff=0.3) or [known[len(known) // 2]]
    return ConfigError(
        "model.hook", hook, f"{problem}; similar hooks: {', '.join(similar)}", f"model.hook={similar[0]}"
    )


def is_same_activation(hook: str, other: str) -> bool:
    """Return whether two hooks see the same tensor: the output of a transformer block is the input of the next one."""
    return as_block_output(hook) == as_block_output(other)


def as_block_output(hook: str) -> str:
    """Return the hook on the output of transformer block L - 1 for a hook on the input of block L: the same tensor.

    Any other hook, and the input of block 0, is returned unchanged.
    """
    layer, name = split_hook(hook) or (0, "")
    return f"blocks.{layer - 1}.hook_resid_post" if name == "hook_resid_pre" and layer > 0 else hook
