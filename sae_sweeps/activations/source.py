"""The source of activations that a pack or study shares: the language model and the text, loaded once."""

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
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import OnProgress

log = logging.getLogger(__name__)

BATCH_TOKENS = 4096  # of held-out text, in a batch of `held_out_text`


class ActivationSource:
    """The language model, the text, and the model's own cross-entropy on held-out text."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """Load the model on a device. Raises: ConfigError if the model or its tokenizer cannot be used."""
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
        """Return the width of an activation."""
        return self.model.d_model

    @property
    def first_position(self) -> int:
        """Return the first position of a sequence that is not BOS."""
        return self._dataset.first_position

    def held_out(self, activations: int) -> HeldOut:
        """Return about `activations` held-out activations and the model's cross-entropy on them; measured once.

        Raises: ConfigError if the held-out text does not fill one sequence.
        """
        if activations not in self._held_out:
            per_sequence = self._dataset.seq_len - self._dataset.first_position
            tokens_NS = self.tokens.held_out_tokens(-(-activations // per_sequence))
            found = len(tokens_NS) * per_sequence
            note = f" (all of them: {found:,} tokens, {activations:,} were asked for)" if found < activations else ""
            log.info("computing the model's baseline cross-entropy on %d held-out sequences%s", len(tokens_NS), note)
            self._held_out[activations] = measure_held_out(self.model, tokens_NS, self._dataset.first_position)
        return self._held_out[activations]

    def held_out_text(self, activations: int, on_progress: OnProgress | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield about `activations` held-out activations (all if the text has fewer), in batches of sequences: the
        tokens (n, S), and the raw activations without those of BOS (n x positions, D)."""
        per_sequence = self._dataset.seq_len - self._dataset.first_position
        tokens_NS = self.tokens.held_out_tokens(-(-activations // per_sequence))
        done = 0
        for tokens_nS in tokens_NS.split(max(1, BATCH_TOKENS // self._dataset.seq_len)):
            acts_nSD = self.model.activations(tokens_nS)
            done += len(tokens_nS)
            yield tokens_nS, acts_nSD[:, self._dataset.first_position :].flatten(0, 1)
            if on_progress is not None:
                on_progress(done, len(tokens_NS))

    def stream(self, config: Config, on_progress: OnProgress | None = None) -> ActivationChunks:
        """Return the chunks that a point is trained on. `on_progress` receives the model's progress within a chunk."""
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
    """Return the source of a pack. Consecutive packs with the same model and text share one.

    Raises: ConfigError if the model or its tokenizer cannot be used.
    """
    key = json.dumps([select_stream_settings(config), str(device)], sort_keys=True)
    if key not in _latest:
        _latest.clear()  # frees the model's memory before another one is loaded
        _latest[key] = ActivationSource(config, device)
    return _latest[key]
