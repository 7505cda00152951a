"""Reads activations at hooks of TransformerBridge in the plain model of transformers, which is faster.

A TransformerBridge replaces the parts of the model that it wraps, and needs eager attention. So the modules are copied
before, without their weights, which both share. Where in the plain model a hook's activations are is not written down
by architecture: it is found by comparing all tensors of the hook's block with the bridge's activations.
"""

# n sequences in a batch, P sequences of a trial, S positions, D model width

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.hooked_model import OTHER_HOOK, Take
from sae_sweeps.activations.hooks import as_block_output, hook_layer
from sae_sweeps.runtime.errors import ConfigError

log = logging.getLogger(__name__)

# GELU with tanh as several operations; torch has one for it
SLOW_GELUS = ("NewGELUActivation", "FastGELUActivation")


class _AllTakenError(Exception):
    """Ends a forward pass once the activations at all hooks are taken."""


@dataclass(frozen=True)
class Tap:
    """Where the activations of a hook are in a model of transformers: what a module reads, or what it returns."""

    module: Any
    is_input: bool

    @contextmanager
    def listen(self, on_tensor: Callable[[Tensor], None]) -> Iterator[None]:
        """Call a function with the tensor here, whenever the module is called within the context."""

        def on_input(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            tensor = next((value for value in (*args, *options.values()) if isinstance(value, Tensor)), None)
            if tensor is not None:
                on_tensor(tensor)

        def on_output(module: Any, args: Any, out: Any) -> None:
            tensor = out[0] if isinstance(out, tuple) and out else out
            if isinstance(tensor, Tensor):
                on_tensor(tensor)

        if self.is_input:
            handle = self.module.register_forward_pre_hook(on_input, with_kwargs=True)
        else:
            handle = self.module.register_forward_hook(on_output)
        try:
            yield
        finally:
            handle.remove()


class PlainModel:
    """A model of transformers, which gives the activations at those hooks of a TransformerBridge that `find` finds."""

    def __init__(self, model: Any, device: torch.device) -> None:
        """Take a model from `share_weights`. It gets fused attention (SDPA), unless its architecture does not allow it.

        SDPA has no soft-capping of the attention scores, as Gemma 2 has it: such a model keeps eager attention.
        """
        self._model, self._device = model.eval(), device
        self._taps: dict[str, Tap] = {}
        self._use_fused_operations()

    @property
    def attention(self) -> str:
        """Return transformers' name of the implementation of attention: sdpa, or eager."""
        return str(self._model.config.get_text_config(decoder=True)._attn_implementation)

    def _use_fused_operations(self) -> None:
        reason = ""
        if _has_soft_cap(self._model.config.get_text_config(decoder=True).to_dict()):
            reason = "SDPA has no soft cap of attention scores"
        else:
            with suppress(ValueError, ImportError):
                self._model.set_attn_implementation("sdpa")
        if self.attention != "sdpa":
            reason = reason or f"transformers has no other for {type(self._model).__name__}"
            log.info("the activations are read with eager attention: %s", reason)
        for part in self._model.modules():
            for name, child in list(part.named_children()):
                if type(child).__name__ in SLOW_GELUS:
                    setattr(part, name, torch.nn.GELU(approximate="tanh"))

    def find(self, hook: str, tokens_PS: Tensor, expected_PSD: Tensor) -> float:
        """Find the tensor that a hook sees: the one nearest to the bridge's activations. Return the relative error.

        It is infinite if no tensor of the block has the shape of activations in each of the model's calls.
        See `find_difference`.
        """
        found: list[tuple[Tap, list[float]]] = []
        with ExitStack() as stack:
            for tap in self._list_taps(hook):
                errors: list[float] = []
                stack.enter_context(tap.listen(partial(_compare, errors, expected_PSD)))
                found.append((tap, errors))
            self._run(tokens_PS)
        once = [(errors[0], tap) for tap, errors in found if len(errors) == 1]
        if not once:
            return math.inf
        error, self._taps[hook] = min(once, key=lambda one: one[0])
        return error

    def _list_taps(self, hook: str) -> list[Tap]:
        """Return what modules of the hook's block read and return; of the block alone for a hook between two blocks."""
        output = as_block_output(hook)
        count = self._model.config.get_text_config(decoder=True).num_hidden_layers
        lists = [part for part in self._model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
        blocks = [blocks[hook_layer(output)] for blocks in lists]
        if output.endswith(("hook_resid_pre", "hook_resid_post")):
            return [Tap(block, output.endswith("pre")) for block in blocks]
        return [Tap(part, side) for block in blocks for part in block.modules() for side in (True, False)]

    @torch.no_grad()
    def read(self, tokens_nS: Tensor, takes: Mapping[str, Take]) -> None:
        """Call a function per hook with the activations (n, S, D) there, to copy them, as HookedModel.read does.

        What comes after the last of these activations is not run. `find` must have found each hook.
        Raises: ConfigError if a hook is not called exactly once.
        """
        left = set(takes)

        def collect(hook: str, acts: Tensor) -> None:
            if hook not in left:
                raise ConfigError("model.hook", hook, "the hook was called twice for a batch", OTHER_HOOK)
            left.remove(hook)
            takes[hook](acts.reshape(*tokens_nS.shape, -1))  # some modules see all positions as rows
            if not left:
                raise _AllTakenError

        with ExitStack() as stack:
            for hook in takes:
                stack.enter_context(self._taps[hook].listen(partial(collect, hook)))
            try:
                self._run(tokens_nS)
            except _AllTakenError:
                return
        raise ConfigError("model.hook", min(left), "the hook was not called for a batch", OTHER_HOOK)

    @torch.no_grad()
    def _run(self, tokens_nS: Tensor) -> None:
        self._model.base_model(tokens_nS.to(self._device), use_cache=False)  # without the head


def _has_soft_cap(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json has a soft cap for attention scores, which SDPA would leave out or refuse."""
    return any(value for name, value in config.items() if re.search(r"att\w*cap", name))


def _compare(errors: list[float], expected_PSD: Tensor, found: Tensor) -> None:
    if found.numel() == expected_PSD.numel() and found.shape[-1] == expected_PSD.shape[-1]:
        errors.append(find_difference(found.reshape(expected_PSD.shape), expected_PSD))


def find_difference(found_PSD: Tensor, expected_PSD: Tensor) -> float:
    """Return the root mean square over positions of |found - expected| / |expected|; infinite if it is not finite.

    Each position counts alike: in one norm of the whole tensor, the few positions that some models give activations a
    hundred times as large as others (arXiv:2402.17762) would hide all errors elsewhere.
    """
    difference_PS = (found_PSD.double() - expected_PSD.double()).norm(dim=-1)
    relative_PS = difference_PS / expected_PSD.double().norm(dim=-1).clamp_min(1e-30)
    error = float(relative_PS.square().mean().sqrt())
    return error if math.isfinite(error) else math.inf
