"""Reads and replaces activations at a hook of TransformerBridge, and checks that it really happens.

A hook that is not called leaves no trace in TransformerLens: without these checks the result would be numbers of
another tensor, or of the model as it is.
"""

# N sequences, n of them in a batch, S positions, D model width, V vocabulary; P sequences of a trial

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.hooks import WIDE_HOOKS, as_block_output, hook_layer, split_hook, unknown_hook_error
from sae_sweeps.activations.loading import (
    OTHER_MODEL,
    Trial,
    bridge_error,
    describe_failure,
    describe_library,
    is_different,
)
from sae_sweeps.runtime.errors import ConfigError

Replace = Callable[[Tensor], Tensor]
Take = Callable[[Tensor], Any]

HALVES = (torch.bfloat16, torch.float16)  # dtypes in which activations are kept; each is exact in float32
OTHER_HOOK = "choose another hook"


class HookedModel:
    """A model in a TransformerBridge: activations and logits of one batch at a time."""

    def __init__(self, bridge: Any, device: torch.device) -> None:
        self._bridge, self._device = bridge, device

    @property
    def n_layers(self) -> int:
        """Return the number of transformer blocks."""
        return int(self._bridge.cfg.n_layers)

    @contextmanager
    def replacing_blocks(self, count: int, forward: Callable[..., Tensor]) -> Iterator[None]:
        """Put a function in the place of the first `count` transformer blocks, within the context."""
        blocks = list(self._bridge.blocks)[:count]
        before = [vars(block).get("forward") for block in blocks]
        for block in blocks:
            vars(block)["forward"] = forward  # setattr would set it on the wrapped component
        try:
            yield
        finally:
            for block, own in zip(blocks, before, strict=True):
                if own is None:
                    del vars(block)["forward"]
                else:
                    vars(block)["forward"] = own

    @contextmanager
    def skipping_blocks(self, count: int) -> Iterator[str]:
        """Skip the first `count` blocks, which pass their input on, within the context. Yields the hook behind them."""
        with self.replacing_blocks(count, _pass_through):
            yield f"blocks.{count}.hook_resid_pre"

    @torch.no_grad()
    def read(self, tokens_nS: Tensor, takes: Mapping[str, Take]) -> None:
        """Call a function per hook with the activations (n, S, D) there, to copy them at once.

        One forward pass reads all hooks. Layers above the deepest one are not run.
        takes: hook -> function
        Raises: ConfigError if a hook is not called exactly once, or with another shape.
        """
        shape = (*tokens_nS.shape, int(self._bridge.cfg.d_model))
        calls: dict[str, list[tuple[int, ...]]] = {hook: [] for hook in takes}

        def collect(asked: str, acts: Tensor, hook: object) -> None:
            calls[asked].append(tuple(acts.shape))
            if acts.shape == shape:
                takes[asked](acts)  # at once: the model may change the tensor in place

        # a block's input is the output of the block before: one block less is run
        outputs = {hook: as_block_output(hook) for hook in takes}
        self._bridge.run_with_hooks(
            tokens_nS.to(self._device),
            fwd_hooks=[(output, partial(collect, hook)) for hook, output in outputs.items()],
            return_type=None,
            stop_at_layer=max(map(hook_layer, outputs.values())) + 1,
        )
        for hook in takes:
            _require_one_call(hook, calls[hook], shape)

    @torch.no_grad()
    def logits(self, tokens_nS: Tensor, hook: str = "", replace: Replace | None = None) -> Tensor:
        """Return the logits (n, S, V), with the activations at `hook` replaced by `replace(acts_nSD)` if it is given.

        Raises: ConfigError if the hook is not called exactly once, or with another shape.
        """
        shape = (*tokens_nS.shape, int(self._bridge.cfg.d_model))
        calls: list[tuple[int, ...]] = []
        hooks = []
        if replace is not None:

            def substitute(acts: Tensor, hook: object, name: str = hook) -> Tensor:
                calls.append(tuple(acts.shape))
                _require_one_call(name, calls, shape)  # `replace` expects this shape
                replaced = replace(acts.float()).to(acts.dtype)
                assert replaced.shape == acts.shape, "a replacement has the shape of the activations"
                return replaced

            hooks = [(hook, substitute)]
        logits_nSV: Tensor = self._bridge.run_with_hooks(
            tokens_nS.to(self._device), fwd_hooks=hooks, return_type="logits"
        )
        if replace is not None:
            _require_one_call(hook, calls, shape)
        return logits_nSV

    def require_hook(self, name: str, hook: str, trial: Trial) -> None:
        """Try a hook of the model `name`: it must give the activations of the model, and replacing them an effect.

        Raises: ConfigError if not, if the model has no such hook, or if TransformerLens cannot run the model.
        """
        library = describe_library()
        if hook not in self._bridge.hook_dict:
            known = [name for name in self._bridge.hook_dict if (split_hook(name) or (0, ""))[1] in WIDE_HOOKS]
            problem = f"{library} has no such hook in this model"
            raise (
                unknown_hook_error(hook, known, problem)
                if known
                else ConfigError("model.hook", hook, problem, OTHER_MODEL)
            )
        try:
            logits_PSV = self.logits(trial.tokens_PS)
        except Exception as error:  # an architecture that TransformerLens gets wrong may fail in any way
            raise bridge_error(name, error) from error
        if is_different(logits_PSV, trial.logits_PSV):
            problem = f"{library} computes other logits than transformers for this architecture"
            raise ConfigError("model.name", name, problem, OTHER_MODEL)
        try:
            fault = self._find_fault(hook, trial, logits_PSV)
        except ConfigError:
            raise
        except Exception as error:
            fault = f"the hook cannot be used in this architecture ({describe_failure(error)})"
        if fault is not None:
            raise ConfigError("model.hook", hook, f"{library}: {fault}", OTHER_HOOK)

    def _find_fault(self, hook: str, trial: Trial, logits_PSV: Tensor) -> str | None:
        acts_PSD = torch.empty(*trial.tokens_PS.shape, int(self._bridge.cfg.d_model), device=self._device)
        self.read(trial.tokens_PS, {hook: acts_PSD.copy_})
        layer, place = split_hook(hook) or (-1, "")
        side = {"hook_resid_pre": 0, "hook_resid_post": 1}.get(place)
        if side is not None and layer in trial.blocks:
            expected_PSD = trial.blocks[layer][side]
            if acts_PSD.shape != expected_PSD.shape or is_different(acts_PSD.to(expected_PSD.dtype), expected_PSD):
                return f"the hook gives other activations than the block of transformers {('reads', 'writes')[side]}"
        if is_different(self.logits(trial.tokens_PS, hook, lambda acts: acts_PSD), logits_PSV):
            return "the model computes other logits once the activations at the hook are replaced by themselves"
        signs_D = torch.ones(acts_PSD.shape[-1], device=self._device)
        signs_D[::2] = -1  # a shift of all channels alike would vanish in a LayerNorm
        moved_PSD = acts_PSD + signs_D * (1 + acts_PSD.abs().max())
        if torch.equal(self.logits(trial.tokens_PS, hook, lambda acts: moved_PSD), logits_PSV):
            return "replacing the activations at the hook has no effect"
        return None


def _require_one_call(hook: str, calls: list[tuple[int, ...]], shape: tuple[int, ...]) -> None:
    if len(calls) != 1:
        problem = f"the hook was called {len(calls)} times for a batch instead of once"
        raise ConfigError("model.hook", hook, problem, OTHER_HOOK)
    if calls[0] != shape:
        problem = f"the activations at the hook have the shape {calls[0]} instead of {shape}"
        raise ConfigError("model.hook", hook, problem, OTHER_HOOK)


def _pass_through(hidden_NSD: Tensor, *others: Any, **options: Any) -> Tensor:
    """Return the residual stream unchanged. This replaces the forward pass of a skipped transformer block."""
    return hidden_NSD
