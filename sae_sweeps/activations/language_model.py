"""The language model: activations at a hook, and the cross-entropy when these activations are replaced.

Models run in the TransformerBridge of TransformerLens (versions 3 and 4), which gives every Hugging Face decoder the
same hook names.
"""

# N sequences, S positions, D model width, V vocabulary

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property, partial

import torch
from torch import Tensor

from sae_sweeps.activations.hooked_model import HookedModel, Replace
from sae_sweeps.activations.hooks import hook_layer
from sae_sweeps.activations.loading import hash_model, load_model
from sae_sweeps.activations.pieces import LARGE, Cut, Piece, cut_nothing, make_cutter
from sae_sweeps.activations.predictions import Losses, LossSum, to_log_probabilities
from sae_sweeps.activations.reading import make_reader
from sae_sweeps.config import ModelConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import OnProgress

LOGITS_IN_MEMORY = 2**23  # elements of the logits (N, S, V) of a batch on a CPU; more is slower
LOGITS_IN_MEMORY_CUDA = 2**26  # the same on CUDA

ReplaceBatch = Callable[[Tensor, int], Tensor]  # (activations (n, S, D), number of the first sequence) -> activations


class LanguageModel:
    """A frozen decoder and its tokenizer."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        """Load the model and the tokenizer on a device, with frozen weights.

        Raises: ConfigError if the folder or hub name cannot be loaded, if the model is no decoder with all its weights,
        or if `config.hook` does not work in it.
        """
        self.config, self.device, self.hook = config, device, config.hook
        loaded = load_model(config, device)
        self._bridge, self.tokenizer, self._trial = loaded.bridge, loaded.tokenizer, loaded.trial
        self._hooked = HookedModel(self._bridge, device)
        self._lens_works = False  # it is tried at the first use
        self._hooked.require_hook(config.name, self.hook, self._trial)
        self.reader = make_reader(self._hooked, loaded, device)
        self.reader.is_plain(self.hook)  # compares both ways here, and not later, in the first chunk

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens such as BOS.

        Characters that spell a special token are text: they have the ids of their letters.
        Raises: ConfigError if the model's embedding has no row for an id.
        """
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
        found: list[list[int]] = self.tokenizer(texts, verbose=False, **options)["input_ids"]
        self._require_row(max((max(ids) for ids in found if ids), default=0))
        return found

    def cut(self, text: str) -> Iterator[Piece]:
        """Yield the pieces in which a document is given to the tokenizer: several for a large one."""
        return self._cut(text) if len(text) >= LARGE else cut_nothing(text)

    @cached_property
    def _cut(self) -> Cut:
        return make_cutter(self.tokenizer, self.encode)

    @property
    def d_model(self) -> int:
        """Return the width of the residual stream, D."""
        return int(self._bridge.cfg.d_model)

    @property
    def has_layer_norm(self) -> bool:
        """Return whether the model normalises with LayerNorm, which ignores the mean of an activation, D entries."""
        return self._bridge.cfg.normalization_type in ("LN", "LNPre") and not self._bridge.cfg.final_rms

    @property
    def bos(self) -> int | None:
        """Return the id of the BOS token; None if the tokenizer has no BOS token.

        Raises: ConfigError if it has no embedding.
        """
        return self._require_row(self.tokenizer.bos_token_id)

    @property
    def eos(self) -> int | None:
        """Return the id of the end-of-text token; None if the tokenizer has no end-of-text token.

        Raises: ConfigError if it has no embedding.
        """
        return self._require_row(self.tokenizer.eos_token_id)

    def _require_row(self, token: int | None) -> int | None:
        if token is not None and token >= self._trial.rows:
            text = self.tokenizer.convert_ids_to_tokens(token)
            problem = (
                f"the tokenizer gives the id {token} ({text!r}), but the model's embedding has {self._trial.rows} rows"
            )
            raise ConfigError("model.name", self.config.name, problem, "use the tokenizer of this model")
        return token

    def sequences_per_pass(self, seq_len: int) -> int:
        """Return how many sequences of `seq_len` tokens a forward pass takes on this model's device."""
        return self.config.sequences_per_pass(self.device.type, seq_len)

    def at(self, hook: str) -> "LanguageModel":
        """Return this model for another hook, with the same weights in memory.

        Raises: ConfigError if the hook does not work in it.
        """
        other = copy(self)
        other.config, other.hook = dataclasses.replace(self.config, hook=hook), hook
        other._hooked.require_hook(self.config.name, hook, self._trial)
        return other

    def activations(
        self, tokens_NS: Tensor, on_progress: OnProgress | None = None, *, hook: str | None = None
    ) -> Tensor:
        """Return the activations at the hook, or at another one, (N, S, D), as `activations_at` does.

        TransformerLens reads them, whatever `model.reader` is: the very numbers that `compare` replaces.
        """
        hook, per_pass = hook or self.hook, self.sequences_per_pass(tokens_NS.shape[1])
        return self.reader.read_all(tokens_NS, [hook], per_pass, on_progress, exact=True)[hook]

    def activations_at(
        self, tokens_NS: Tensor, hooks: Sequence[str], on_progress: OnProgress | None = None
    ) -> dict[str, Tensor]:
        """Return the activations at each of several hooks, (N, S, D), for the token ids `tokens_NS`, in one pass.

        They are read as `model.reader` says. They keep their dtype in the model if that is bfloat16 or float16, which
        halves the memory; else they are float32. Layers above the deepest hook are not run. `on_progress` is called
        with the number of sequences that are done, and N.
        Raises: ConfigError if the model does not call a hook exactly once for each batch.
        """
        return self.reader.read_all(tokens_NS, hooks, self.sequences_per_pass(tokens_NS.shape[1]), on_progress)

    @cached_property
    def fingerprint(self) -> str:
        """Return a SHA-256 hash of weights and configuration: equal models have equal hashes, wherever loaded from."""
        return hash_model(self._bridge)

    @property
    def logits_at_once(self) -> int:
        """Return the number of positions whose logits fit in the memory for one batch: less for a larger vocabulary."""
        in_memory = LOGITS_IN_MEMORY_CUDA if self.device.type == "cuda" else LOGITS_IN_MEMORY
        return max(1, in_memory // int(self._bridge.cfg.d_vocab))

    @property
    def last_hook(self) -> str:
        """Return the hook at the output of the last block."""
        return f"blocks.{self._hooked.n_layers - 1}.hook_resid_post"

    def logit_lens(self, directions_ND: Tensor) -> Tensor:
        """Return the logit lens (N, V) of N directions in the residual stream.

        For a direction d it is logits(d) - logits(0), where logits(x) is what the model computes if x leaves its last
        block: with its own final norm, projection, scale and soft cap.
        Raises: ConfigError if the output of the last block cannot be replaced.
        """
        hook = self.last_hook
        if not self._lens_works:
            self._hooked.require_hook(self.config.name, hook, self._trial)
            self._lens_works = True
        tokens_S = self._trial.tokens_PS[0]  # any tokens will do: their activations are replaced
        padding = -(len(directions_ND) + 1) % len(tokens_S)
        zeros_ND = directions_ND.new_zeros(1 + padding, self.d_model)
        directions_nSD = torch.cat([directions_ND, zeros_ND]).unflatten(0, (-1, len(tokens_S)))
        directions_nSD = directions_nSD.detach().to(self.device, torch.float32)
        tokens_nS = tokens_S.expand(len(directions_nSD), -1)
        logits_NV = self._hooked.logits(tokens_nS, hook, lambda acts: directions_nSD).float().flatten(0, 1)
        return logits_NV[: len(directions_ND)] - logits_NV[len(directions_ND)]

    @torch.no_grad()
    def predict_next(self, tokens_S: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the log-probabilities, in nats, of the token that follows the token ids (S,), (V,).

        replace: receives the activations (S, D) at the hook and returns those that the model continues with
        """
        substitute = None if replace is None else (lambda acts_1SD: replace(acts_1SD[0])[None])
        logits_1SV = self._hooked.logits(tokens_S[None], self.hook, substitute)
        return logits_1SV[0, -1].float().log_softmax(0)

    @torch.no_grad()
    def logits(self, tokens_nS: Tensor, replace: Replace | None = None, *, from_hook: bool = False) -> Tensor:
        """Return the logits (n, S, V) in float32, with `replace(acts_nSD)` in place of the activations at the hook.

        from_hook: as in `cross_entropy`
        """
        with self._starting_at(from_hook) as hook:
            return self._hooked.logits(tokens_nS, hook, replace).float()

    @torch.no_grad()
    def cross_entropy(
        self,
        tokens_NS: Tensor,
        replace: ReplaceBatch | None = None,
        counted_NS: Tensor | None = None,
        *,
        from_hook: bool = False,
    ) -> float:
        """Return the mean cross-entropy, in nats per token, of the predictions of the next token.

        replace: called for each batch as `replace(acts_nSD, first)` with the activations at the hook of n sequences,
            the first of which is number `first`; returns the activations that the model continues with
        counted_NS: the positions whose predictions are counted, bool (N, S); None counts all
        from_hook: skip the layers below the hook. `replace` then receives other values of the same shape, so it may
            only use the shape. Requires `can_start_at_hook`
        """
        (losses,) = self._measure(tokens_NS, None, [replace], counted_NS, from_hook)
        return losses.cross_entropy

    @torch.no_grad()
    def compare(
        self,
        tokens_NS: Tensor,
        original: ReplaceBatch | Tensor | None,
        replacements: Sequence[ReplaceBatch | None],
        counted_NS: Tensor | None = None,
        *,
        from_hook: bool = False,
    ) -> list[Losses]:
        """Return the losses of the predictions with each replacement of the activations at the hook; None: with none.

        original: the replacement whose predictions are those that the KL divergence compares with; see `cross_entropy`.
            Or what the last block then returns, (N, S, D), which takes less time. None: no KL divergence, 0
        """
        return self._measure(tokens_NS, original, replacements, counted_NS, from_hook)

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

    def _measure(
        self,
        tokens_NS: Tensor,
        original: ReplaceBatch | Tensor | None,
        replacements: Sequence[ReplaceBatch | None],
        counted_NS: Tensor | None,
        from_hook: bool,
    ) -> list[Losses]:
        """Return the losses with each replacement, with a KL divergence of 0 if there is no `original`."""
        counted_NS = torch.ones_like(tokens_NS, dtype=torch.bool) if counted_NS is None else counted_NS
        sums, first = [LossSum(self.logits_at_once) for _ in replacements], 0
        per_batch = max(1, self.logits_at_once // tokens_NS.shape[1])
        with self._starting_at(from_hook) as hook:
            for batch_NS in tokens_NS.split(min(per_batch, self.sequences_per_pass(tokens_NS.shape[1]))):
                batch_NS = batch_NS.to(self.device)
                is_counted = counted_NS[first : first + len(batch_NS), :-1].to(self.device)
                predict = partial(self._predict, batch_NS, hook, first, is_counted)
                target_M = batch_NS[:, 1:][is_counted]
                reference_MV = None
                if isinstance(original, Tensor):
                    final_nSD = original[first : first + len(batch_NS)]
                    reference_MV = to_log_probabilities(self._predict_from(final_nSD, batch_NS, is_counted))
                elif original is not None:
                    reference_MV = to_log_probabilities(predict(original))
                for one, replace in zip(sums, replacements, strict=True):
                    one.add(predict(replace), target_M, reference_MV)
                first += len(batch_NS)
        return [one.average(int(counted_NS[:, :-1].sum())) for one in sums]

    def _predict(
        self, batch_NS: Tensor, hook: str, first: int, is_counted: Tensor, replace: ReplaceBatch | None
    ) -> Tensor:
        """Return the logits of the counted predictions, (M, V), with the activations at a hook replaced."""
        on_hook = None if replace is None else (lambda acts_nSD: replace(acts_nSD, first))
        return self._hooked.logits(batch_NS, hook, on_hook)[:, :-1][is_counted].float()

    @contextmanager
    def _starting_at(self, from_hook: bool) -> Iterator[str]:
        """Yield the hook at which activations are replaced; with `from_hook`, the layers below pass theirs on."""
        if not from_hook:
            yield self.hook
            return
        layer = self._first_layer_above
        assert layer is not None, "from_hook requires can_start_at_hook"
        with self._hooked.skipping_blocks(layer) as hook:
            yield hook

    def _predict_from(self, final_nSD: Tensor, batch_NS: Tensor, is_counted: Tensor) -> Tensor:
        """Return the logits of the counted predictions, (M, V), of outputs of the last block."""
        with self._hooked.replacing_blocks(self._hooked.n_layers, lambda *arguments, **options: final_nSD):
            return self._hooked.logits(batch_NS)[:, :-1][is_counted].float()
