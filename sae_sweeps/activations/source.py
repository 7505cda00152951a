"""What a task begins with: the device, the language model, the text, and the measurements on held-out text."""

import json
import logging
from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.held_out import HeldOut, measure_held_out
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.config import Config
from sae_sweeps.config.identity import stream_settings
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import OnProgress

log = logging.getLogger(__name__)

AT_ONCE = 4096  # held-out activations that are looked at together


class ActivationSource:
    """What the points of a pack share: the language model, the text, and the measurements on held-out text."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """Raises: ConfigError if the model or the text cannot be used."""
        dataset = config.dataset
        self.device = device
        self.model = LanguageModel(config.model, device)
        if dataset.prepend_bos and self.model.bos is None:
            fix = "dataset.prepend_bos=false"
            raise ConfigError("dataset.prepend_bos", True, "the model's tokenizer has no BOS token", fix)
        bos = self.model.bos if dataset.prepend_bos else None
        self.tokens = TokenSource(dataset, self.model.encode, bos, self.model.eos)
        self._dataset = dataset
        self._held_out: dict[int, HeldOut] = {}

    @property
    def d_in(self) -> int:
        return self.model.d_model

    @property
    def first_position(self) -> int:
        """The first position of a sequence that is not BOS."""
        return self._dataset.first_position

    def held_out(self, activations: int) -> HeldOut:
        """The measurements on about so many activations; made once."""
        if activations not in self._held_out:
            per_sequence = self._dataset.seq_len - self._dataset.first_position
            tokens_NS = self.tokens.held_out_tokens(-(-activations // per_sequence))
            there = len(tokens_NS) * per_sequence
            few = f", all there are: {there:,} of {activations:,} tokens" if there < activations else ""
            log.info("measuring the model itself on %d held-out sequences%s", len(tokens_NS), few)
            self._held_out[activations] = measure_held_out(self.model, tokens_NS, self._dataset.first_position)
        return self._held_out[activations]

    def held_out_text(self, activations: int, on_progress: OnProgress | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """About so many held-out activations, fewer if there is no more text, some sequences at a time: their tokens
        (n, S) and the raw activations behind BOS (n x positions, D)."""
        per_sequence = self._dataset.seq_len - self._dataset.first_position
        tokens_NS = self.tokens.held_out_tokens(-(-activations // per_sequence))
        done = 0
        for tokens_nS in tokens_NS.split(max(1, AT_ONCE // self._dataset.seq_len)):
            acts_nSD = self.model.activations(tokens_nS)
            done += len(tokens_nS)
            yield tokens_nS, acts_nSD[:, self._dataset.first_position :].flatten(0, 1)
            if on_progress is not None:
                on_progress(done, len(tokens_NS))

    def stream(self, config: Config, on_progress: OnProgress | None = None) -> ActivationChunks:
        """The activations that a point is trained on; `told` hears of the model's progress in a chunk."""
        training, settings = config.training, config.activations
        cache = None
        if settings.cache is not None:
            origin = {
                "weights": self.model.fingerprint,
                "hook": config.model.hook,
                "batch_sequences": config.model.batch_sequences,
                "device": self.device.type,
                **{package: version(package) for package in ("torch", "transformers", "transformer-lens")},
            }
            cache = ActivationCache(settings.cache, settings.cache_gib * 2**30, origin)
        chunk_size = training.batch_size * training.chunk_batches
        seed = self._dataset.seed
        return ActivationChunks(
            self.model, self.tokens, chunk_size=chunk_size, seed=seed, cache=cache, on_progress=on_progress
        )


_latest: dict[str, ActivationSource] = {}


def load_source(config: Config, device: torch.device) -> ActivationSource:
    """The inputs of a pack; loaded once for packs that follow each other and share them.

    Raises: ConfigError if the model or the text cannot be used.
    """
    key = json.dumps([stream_settings(config), str(device)], sort_keys=True)
    if key not in _latest:
        _latest.clear()  # before another model is loaded
        _latest[key] = ActivationSource(config, device)
    return _latest[key]
