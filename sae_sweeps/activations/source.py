"""The source of activations for a pack or a study, loaded once: a language model and text, or planted features."""

import json
import logging
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from importlib.metadata import version
from typing import TypeAlias

import torch
from torch import Tensor

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.finite import require_finite
from sae_sweeps.activations.held_out import HeldOut, measure_held_out
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.model_files import no_bos_error
from sae_sweeps.activations.positions import Positions
from sae_sweeps.activations.synthetic import SyntheticChunks, SyntheticSource
from sae_sweeps.activations.tokens import HeldOutSequences, TokenSource
from sae_sweeps.activations.units import find_units
from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.runtime.devices import device_name
from sae_sweeps.runtime.progress import OnProgress

log = logging.getLogger(__name__)

BATCH_TOKENS = 4096  # tokens in a batch of `held_out_text`


class ActivationSource:
    """The language model and the text: chunks to train on, held-out activations, and the model's own cross-entropy.

    It is a source of activations at one hook; `at` gives those of others, of the same model in memory.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        """Load the language model on a device. The text is read later, when it is needed.

        Raises: ConfigError if the model cannot be loaded, if `dataset.prepend_bos` is set and there is no BOS token, or
        if `dataset.exclude` names a token that the tokenizer does not have.
        """
        dataset = config.dataset
        self.device = device
        self.model = LanguageModel(config.model, device)
        if dataset.prepend_bos and self.model.bos is None:
            raise no_bos_error()
        bos = self.model.bos if dataset.prepend_bos else None
        self.tokens = TokenSource(dataset, self.model.encode, bos, self.model.eos, self.model.cut)
        self.positions = Positions.from_settings(dataset, self.model.tokenizer, (self.model.bos, self.model.eos))
        self._dataset = dataset
        self._held_out: dict[int, HeldOut] = {}
        self._by_hook = {config.model.hook: self}

    def at(self, hook: str) -> "ActivationSource":
        """Return the source of activations at another hook of the same model and text.

        Raises: ConfigError if the hook does not work in the model.
        """
        if hook not in self._by_hook:
            other = copy(self)
            other.model, other._held_out = self.model.at(hook), {}
            self._by_hook[hook] = other
        return self._by_hook[hook]

    @property
    def d_in(self) -> int:
        """Return the width of an activation, D."""
        return self.model.d_model

    @property
    def first_position(self) -> int:
        """Return the first position of a sequence that is not BOS."""
        return self._dataset.first_position

    def held_out(self, activations: int) -> HeldOut:
        """Return about `activations` held-out activations, all if the text has fewer, and the model's cross-entropy.

        The number is rounded up to whole sequences. Each value of `activations` is measured once; later calls return
        the stored result.
        Raises: ConfigError if the held-out text does not fill one sequence.
        """
        if activations not in self._held_out:
            tokens_NS, document_NS = self._read_held_out(activations)
            found = int(self.positions.find(tokens_NS).sum())
            note = (
                f": the held-out text has {found:,} tokens, fewer than the requested {activations:,}"
                if found < activations
                else ""
            )
            log.info("computing the model's baseline cross-entropy on %d held-out sequences%s", len(tokens_NS), note)
            elsewhere = (source._held_out.get(activations) for source in self._by_hook.values())
            known = next(filter(None, elsewhere), None)
            self._held_out[activations] = data = measure_held_out(self.model, tokens_NS, self.positions, known)
            data.units = find_units(tokens_NS, document_NS, data.is_data_NS)
            if data.left_out:
                message = "left out %s of %s held-out positions, because of their tokens (dataset.exclude=%s)"
                total = f"{found + data.left_out:,}"
                log.info(message, f"{data.left_out:,}", total, self._dataset.exclude)
        return self._held_out[activations]

    def _read_held_out(self, activations: int) -> HeldOutSequences:
        """Return the fewest held-out sequences with `activations` positions that are data; all if fewer exist.

        Raises: ConfigError if the held-out text does not fill one sequence, or has no position that is data.
        """
        count = -(-activations // (self._dataset.seq_len - self.positions.first))
        while True:
            tokens_NS, document_NS = self.tokens.held_out(count)
            self.positions.require_some(tokens_NS[:, :-1], self._dataset.exclude)
            found_N = self.positions.find(tokens_NS).sum(1).cumsum(0)
            if found_N[-1] >= activations or len(tokens_NS) < count:
                needed = int((found_N < activations).sum()) + 1
                return HeldOutSequences(tokens_NS[:needed], document_NS[:needed])
            count = -(-count * activations // int(found_N[-1]))

    def held_out_text(self, activations: int, on_progress: OnProgress | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of n held-out sequences: the tokens (n, S), and the raw activations (B, D) in float32.

        See `held_out_text_at`, of which these are the activations at this source's hook.
        """
        hook = self.model.hook
        for tokens_nS, acts in self.held_out_text_at([hook], activations, on_progress):
            yield tokens_nS, acts[hook]

    def held_out_text_at(
        self, hooks: Sequence[str], activations: int, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield batches of n held-out sequences: the tokens (n, S), and raw activations (B, D) in float32 by hook.

        The activations are those of the positions that are data, `positions.find(tokens)`. All batches have about
        `activations` activations together, or all if the text has fewer. `on_progress` is called with the number of
        sequences that are done, and their total.
        Raises: ConfigError if the held-out text does not fill one sequence, or if an activation is not finite.
        """
        tokens_NS, _ = self._read_held_out(activations)
        done = 0
        for tokens_nS in tokens_NS.split(max(1, BATCH_TOKENS // self._dataset.seq_len)):
            read = self.model.activations_at(tokens_nS, hooks)
            done += len(tokens_nS)
            is_data_nS = self.positions.find(tokens_nS)
            acts = {hook: acts_nSD[is_data_nS.to(acts_nSD.device)].float() for hook, acts_nSD in read.items()}
            for hook, x_BD in acts.items():
                require_finite(replace(self.model.config, hook=hook), x_BD, "held-out activations")
            if is_data_nS.any():
                yield tokens_nS, acts
            if on_progress is not None:
                on_progress(done, len(tokens_NS))

    def stream(self, config: Config, on_progress: OnProgress | None = None) -> ActivationChunks:
        """Return the chunks of shuffled activations that the SAE of a configuration is trained on.

        They also give the chunks of other hooks, from the same pass of the model.
        `on_progress` is called with the number of sequences of a chunk that the model has processed, and their total.
        """
        training, settings = config.training, config.activations
        cache = None
        if settings.cache is not None:
            origin = {
                "weights": self.model.fingerprint,
                "batch_sequences": self.model.sequences_per_pass(self._dataset.seq_len),
                "device": "cpu" if self.device.type == "cpu" else device_name(self.device),
                **{package: version(package) for package in ("torch", "transformers", "transformer-lens")},
            }
            max_bytes, describe = settings.cache_gib * 2**30, self.model.reader.describe
            cache = ActivationCache(settings.cache, max_bytes, origin, describe)
        chunk_size = training.batch_size * training.chunk_batches
        seed = self._dataset.seed
        return ActivationChunks(
            self.model,
            self.tokens,
            chunk_size=chunk_size,
            seed=seed,
            hook=config.model.hook,
            positions=self.positions,
            cache=cache,
            check=lambda hook, chunk_AD, what: require_finite(replace(self.model.config, hook=hook), chunk_AD, what),
            on_progress=on_progress,
        )


Source: TypeAlias = ActivationSource | SyntheticSource
Chunks: TypeAlias = ActivationChunks | SyntheticChunks
_latest: dict[str, Source] = {}  # the source loaded last, by its settings and device


def load_source(config: Config, device: torch.device) -> Source:
    """Return the language model and text of a configuration, or its planted dictionary for dataset=synthetic.

    Consecutive calls with the same settings share it.
    Raises: ConfigError if the model or its tokenizer cannot be used.
    """
    sequences = config.model.sequences_per_pass(device.type, config.dataset.seq_len)
    settings = select_stream_settings(config)
    hook = settings["model"].pop("hook")  # a source has them all
    key = json.dumps([settings, sequences, str(device)], sort_keys=True)
    if key not in _latest:
        _latest.clear()  # frees the model's memory before another one is loaded
        made: Source = (SyntheticSource if config.dataset.is_synthetic else ActivationSource)(config, device)
        _latest[key] = made
    return _latest[key].at(hook)
