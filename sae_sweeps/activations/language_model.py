"""The language model: activations at a hook, and the cross-entropy when these activations are replaced.

Models run in the TransformerBridge of TransformerLens (versions 3 and 4), which gives every Hugging Face decoder the
same hook names.
"""

# N sequences, S positions, D model width, V vocabulary

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.hooks import as_block_output, hook_layer
from sae_sweeps.config import ModelConfig
from sae_sweeps.config.wheel_models import describe_weights
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.paths import expand, expand_folder
from sae_sweeps.runtime.progress import OnProgress

log = logging.getLogger(__name__)

LOGITS_IN_MEMORY = 2**23  # elements of the logits (N, S, V) of a batch on a CPU; more is slower
LOGITS_IN_MEMORY_CUDA = 2**26  # the same on CUDA


class LanguageModel:
    """A frozen decoder and its tokenizer."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        """Load the model and the tokenizer on a device, with frozen weights.

        Raises: ConfigError if the folder or hub name cannot be loaded, or if the model has no hook `config.hook`.
        """
        self.config, self.device = config, device
        self.hook = config.hook
        self._bridge = _load(config, device)
        if self.hook not in self._bridge.hook_dict:
            fix = "choose a hook in a transformer block, such as blocks.0.hook_resid_post"
            raise ConfigError("model.hook", self.hook, "the model has no such hook", fix)
        self.tokenizer = self._bridge.tokenizer

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens such as BOS."""
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    @property
    def d_model(self) -> int:
        """Return the width of the residual stream, D."""
        return int(self._bridge.cfg.d_model)

    @property
    def bos(self) -> int | None:
        """Return the id of the BOS token; None if the tokenizer has no BOS token."""
        return self.tokenizer.bos_token_id

    @property
    def eos(self) -> int | None:
        """Return the id of the end-of-text token; None if the tokenizer has no end-of-text token."""
        return self.tokenizer.eos_token_id

    @torch.no_grad()
    def activations(self, tokens_NS: Tensor, on_progress: OnProgress | None = None) -> Tensor:
        """Return the activations at the hook, (N, S, D) in float32, for the token ids `tokens_NS`.

        Layers above the hook are not run. `on_progress` is called with the number of sequences that are done, and N.
        """
        hook = as_block_output(self.hook)  # a block's input is the output of the block before: one block less is run
        stop = hook_layer(hook) + 1
        acts_NSD = torch.empty(*tokens_NS.shape, self.d_model, device=self.device)
        done = 0

        def collect(acts: Tensor, hook: object) -> None:
            acts_NSD[done : done + len(acts)] = acts

        for batch_NS in tokens_NS.split(self.config.batch_sequences):
            self._bridge.run_with_hooks(
                batch_NS.to(self.device), fwd_hooks=[(hook, collect)], return_type=None, stop_at_layer=stop
            )
            done += len(batch_NS)
            if on_progress is not None:
                on_progress(done, len(tokens_NS))
        return acts_NSD

    @cached_property
    def fingerprint(self) -> str:
        """Return a SHA-256 hash of weights and configuration: equal models have equal hashes, wherever loaded from."""
        config = self._bridge.original_model.config.to_dict()
        for unrelated in ("_name_or_path", "transformers_version"):
            config.pop(unrelated, None)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self._bridge.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def logits_at_once(self) -> int:
        """Return the number of positions whose logits fit in the memory for one batch: less for a larger vocabulary."""
        in_memory = LOGITS_IN_MEMORY_CUDA if self.device.type == "cuda" else LOGITS_IN_MEMORY
        return max(1, in_memory // int(self._bridge.cfg.d_vocab))

    @torch.no_grad()
    def logit_lens(self, directions_ND: Tensor) -> Tensor:
        """Return the logit lens (N, V) of N directions in the residual stream.

        For a direction d it is unembed(ln_final(d)) - unembed(ln_final(0)).
        """
        directions_ND = torch.cat([directions_ND, torch.zeros_like(directions_ND[:1])])
        directions_ND = directions_ND.to(self.device, getattr(torch, self.config.dtype))
        logits_NV = self._bridge.unembed(self._bridge.ln_final(directions_ND)).float()
        return logits_NV[:-1] - logits_NV[-1]

    @torch.no_grad()
    def cross_entropy(
        self,
        tokens_NS: Tensor,
        replace: Callable[[Tensor, int], Tensor] | None = None,
        first_position: int = 0,
        *,
        from_hook: bool = False,
    ) -> float:
        """Return the mean cross-entropy, in nats per token, of the predictions at `first_position` and after it.

        replace: called for each batch as `replace(acts_nSD, first)` with the activations at the hook of n sequences,
            the first of which is number `first`; returns the activations that the model continues with
        from_hook: skip the layers below the hook. `replace` then receives other values of the same shape, so it may
            only use the shape. Requires `can_start_at_hook`
        """
        if not from_hook:
            return self._cross_entropy(tokens_NS, self.hook, replace, first_position)
        layer = self._first_layer_above
        assert layer is not None, "from_hook requires can_start_at_hook"
        below = list(self._bridge.blocks)[:layer]
        for block in below:
            vars(block)["forward"] = _pass_through  # setattr would set it on the wrapped component
        try:
            return self._cross_entropy(tokens_NS, f"blocks.{layer}.hook_resid_pre", replace, first_position)
        finally:
            for block in below:
                del vars(block)["forward"]

    @property
    def can_start_at_hook(self) -> bool:
        """Return whether the forward pass can resume at the hook: the hook lies between two transformer blocks.

        Then the layers above the hook depend on the layers below only through the activations at the hook.

        `start_at_layer` of TransformerLens 4 saves no time: it also runs the blocks below and discards the output.
        """
        return self._first_layer_above is not None

    @property
    def _first_layer_above(self) -> int | None:
        layer = hook_layer(self.hook) + self.hook.endswith("hook_resid_post")
        between = self.hook.endswith(("hook_resid_pre", "hook_resid_post")) and layer < self._bridge.cfg.n_layers
        return layer if between else None

    def _cross_entropy(
        self, tokens_NS: Tensor, hook: str, replace: Callable[[Tensor, int], Tensor] | None, first_position: int
    ) -> float:
        nats, first = 0.0, 0
        per_batch = max(1, self.logits_at_once // tokens_NS.shape[1])
        for batch_NS in tokens_NS.split(min(per_batch, self.config.batch_sequences)):
            hooks = []
            if replace is not None:

                def substitute(acts: Tensor, hook: object, first: int = first) -> Tensor:
                    return replace(acts.float(), first).to(acts.dtype)

                hooks = [(hook, substitute)]
            batch_NS = batch_NS.to(self.device)
            logits_NSV = self._bridge.run_with_hooks(batch_NS, fwd_hooks=hooks, return_type="logits")
            predicted = logits_NSV[:, first_position:-1].float().flatten(0, 1)
            target = batch_NS[:, first_position + 1 :].flatten()
            nats += torch.nn.functional.cross_entropy(predicted, target, reduction="sum").item()
            first += len(batch_NS)
        return nats / (tokens_NS.shape[0] * (tokens_NS.shape[1] - 1 - first_position))


def _pass_through(hidden_NSD: Tensor, *others: Any, **options: Any) -> Tensor:
    """Return the residual stream unchanged. This replaces the forward pass of a skipped transformer block."""
    return hidden_NSD


def _load(config: ModelConfig, device: torch.device) -> Any:
    weights = describe_weights(expand_folder(config.name, "model.name"))
    log.info("loading the language model %s in %s%s", config.name, config.dtype, f": {weights}" if weights else "")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        bridge = TransformerBridge.boot_transformers(
            expand(config.name, "model.name"), device=str(device), dtype=getattr(torch, config.dtype)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            "model.name",
            config.name,
            f"cannot be loaded ({first_line(error)})",
            "check the files in the folder, or the hub name",
        ) from error
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    return bridge
