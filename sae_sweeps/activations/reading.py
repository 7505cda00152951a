"""Chooses what reads activations: TransformerLens, or the plain model of transformers where both agree.

The choice is made once for each hook, on fixed tokens, so that it is the same in every process on a machine.
"""

# N sequences, n of them in a batch, P sequences of a trial, S positions, D model width

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sae_sweeps.activations.hooked_model import HALVES, HookedModel
from sae_sweeps.activations.loading import LoadedModel
from sae_sweeps.activations.plain_model import PlainModel
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.progress import OnProgress

log = logging.getLogger(__name__)

# Largest relative error (`find_difference`) at which two ways of computing an activation count as equal. They differ by
# the order of operations alone: measured up to 1e-6 in float32, 2e-3 in float16 and 2e-2 in bfloat16, after 30 blocks
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TRIED_SEQUENCES, TRIED_TOKENS = 2, 256  # as many tokens as a sliding window of attention often has, or more
ID_STEP = 7919  # a prime, so that the tried tokens are spread over the vocabulary


class ActivationReader:
    """Reads the activations at hooks: with the plain model where it gives the bridge's, else with the bridge.

    Hooks that the same way reads are read in one pass of the model.
    """

    def __init__(self, hooked: HookedModel, plain: PlainModel | None, device: torch.device, tried_PS: Tensor) -> None:
        """Take the model in its bridge and, if one is loaded, the plain model.

        tried_PS: token ids on which both are compared; see `choose_tokens`
        """
        self._hooked, self._plain, self._device, self._tried_PS = hooked, plain, device, tried_PS
        self._is_plain: dict[str, bool] = {}

    def is_plain(self, hook: str) -> bool:
        """Return whether the plain model reads a hook. Both are compared at the first call, which is logged."""
        if hook not in self._is_plain:
            problem = "" if self._plain is None else self._find_problem(self._plain, hook)
            if problem:
                log.info("reading %s with TransformerLens, which is slower: %s", hook, problem)
            self._is_plain[hook] = self._plain is not None and not problem
        return self._is_plain[hook]

    def describe(self, hook: str) -> dict[str, object]:
        """Return what reads the activations at a hook, and with which attention; an empty dict for TransformerLens."""
        if not self.is_plain(hook):
            return {}
        assert self._plain is not None, "it reads the hook"
        return {"reader": "transformers", "attention": self._plain.attention}

    def _find_problem(self, plain: PlainModel, hook: str) -> str:
        """Return why the plain model cannot read a hook; an empty string if it can."""
        expected_PSD = self.read_all(self._tried_PS, [hook], len(self._tried_PS), exact=True)[hook]
        try:
            error = plain.find(hook, self._tried_PS, expected_PSD)
        except Exception as failure:  # an architecture may need arguments that only the bridge gives
            return f"the model alone cannot run ({first_line(failure)})"
        allowed = TOLERANCES[expected_PSD.dtype]
        if error <= allowed:
            log.info("reading %s with transformers, %s attention (relative error %.2g)", hook, plain.attention, error)
            return ""
        return f"the model alone gives other activations there (relative error {error:.2g}, allowed {allowed:g})"

    def read_all(
        self,
        tokens_NS: Tensor,
        hooks: Sequence[str],
        per_pass: int,
        on_progress: OnProgress | None = None,
        *,
        exact: bool = False,
    ) -> dict[str, Tensor]:
        """Return the activations at each hook, (N, S, D), of `per_pass` sequences at a time.

        They have the dtype of the model if it is one of `HALVES`, else float32. `on_progress` is called with the number
        of sequences that are done, and N.
        exact: read all hooks with TransformerLens
        Raises: ConfigError as `HookedModel.read` does.
        """
        plain = [] if exact else [hook for hook in hooks if self.is_plain(hook)]
        bridged = [hook for hook in hooks if hook not in plain]
        kept: dict[str, Tensor] = {}
        done = 0

        def take(hook: str, acts_nSD: Tensor) -> None:
            if hook not in kept:
                dtype = acts_nSD.dtype if acts_nSD.dtype in HALVES else torch.float32
                kept[hook] = torch.empty(*tokens_NS.shape, acts_nSD.shape[2], dtype=dtype, device=self._device)
            kept[hook][done : done + len(acts_nSD)] = acts_nSD

        for batch_NS in tokens_NS.split(per_pass):
            if bridged:
                self._hooked.read(batch_NS, {hook: partial(take, hook) for hook in bridged})
            if plain:
                assert self._plain is not None, "it reads these hooks"
                self._plain.read(batch_NS, {hook: partial(take, hook) for hook in plain})
            done += len(batch_NS)
            if on_progress is not None:
                on_progress(done, len(tokens_NS))
        return kept


def make_reader(hooked: HookedModel, loaded: LoadedModel, device: torch.device) -> ActivationReader:
    """Return the reader of a loaded model, with the plain model if that is loaded."""
    plain = None if loaded.plain is None else PlainModel(loaded.plain, device)
    special = (loaded.tokenizer.bos_token_id, loaded.tokenizer.eos_token_id)
    return ActivationReader(
        hooked, plain, device, choose_tokens(loaded.trial.rows, int(loaded.bridge.cfg.n_ctx), special)
    )


def choose_tokens(rows: int, context: int, special: Sequence[int | None]) -> Tensor:
    """Return token ids (P, S) to compare ways on: spread over the vocabulary, with special ones in the middle.

    rows: number of rows of the embedding
    context: most tokens that the model takes
    special: ids such as that of BOS; None and those without a row are left out
    """
    count = min(TRIED_TOKENS, context)
    tokens_PS = (torch.arange(TRIED_SEQUENCES * count) * ID_STEP % rows).view(TRIED_SEQUENCES, count)
    known = [token for token in special if token is not None and token < rows][:count]
    tokens_PS[-1, count // 2 : count // 2 + len(known)] = torch.tensor(known, dtype=torch.int64)
    return tokens_PS
