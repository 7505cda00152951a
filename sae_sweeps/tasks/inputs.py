"""What a task begins with: the device, the language model, the text, and the measurements on held-out text."""

import json
import logging
import os
from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor

from sae_sweeps.config import Config
from sae_sweeps.errors import ConfigError, first_line
from sae_sweeps.evaluation import HeldOut, held_out
from sae_sweeps.language.activations import ActivationChunks, Told
from sae_sweeps.language.cache import ActivationCache
from sae_sweeps.language.model import LanguageModel
from sae_sweeps.language.tokens import TokenSource
from sae_sweeps.packs import model_and_text

log = logging.getLogger(__name__)

AT_ONCE = 4096  # held-out activations that are looked at together


def choose_device(setting: str) -> torch.device:
    """`auto` takes a CUDA device if there is one, else the CPU. Raises: ConfigError if the device is not there."""
    if setting == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        torch.empty(1, device=setting)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("device", setting, f"cannot be used ({first_line(error)})", "device=auto") from None
    return torch.device(setting)


def unused_gpu(device: torch.device) -> str | None:
    """What is to be said, in a few words, where a process has a GPU and does not use it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda" or given in ("", "-1", "NoDevFiles"):
        return None
    return f"on the {device.type.upper()}, not its GPU"


def require_precision(precision: str, device: torch.device) -> None:
    """Raises: ConfigError if the device has no such precision."""
    if precision == "tf32" and device.type != "cuda":
        fix = "training.precision=float32 or bfloat16"
        raise ConfigError("training.precision", precision, "needs a CUDA device", fix)


def device_name(device: torch.device) -> str:
    """The name under which its speed is kept."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()} with {torch.get_num_threads()} threads"


class Inputs:
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
            tokens_NS = self.tokens.held_out(-(-activations // per_sequence))
            there = len(tokens_NS) * per_sequence
            few = f", all there are: {there:,} of {activations:,} tokens" if there < activations else ""
            log.info("measuring the model itself on %d held-out sequences%s", len(tokens_NS), few)
            self._held_out[activations] = held_out(self.model, tokens_NS, self._dataset.first_position)
        return self._held_out[activations]

    def held_out_text(self, activations: int, told: Told | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """About so many held-out activations, fewer if there is no more text, some sequences at a time: their tokens
        (n, S) and the raw activations behind BOS (n x positions, D)."""
        per_sequence = self._dataset.seq_len - self._dataset.first_position
        tokens_NS = self.tokens.held_out(-(-activations // per_sequence))
        done = 0
        for tokens_nS in tokens_NS.split(max(1, AT_ONCE // self._dataset.seq_len)):
            acts_nSD = self.model.activations(tokens_nS)
            done += len(tokens_nS)
            yield tokens_nS, acts_nSD[:, self._dataset.first_position :].flatten(0, 1)
            if told is not None:
                told(done, len(tokens_NS))

    def stream(self, config: Config, told: Told | None = None) -> ActivationChunks:
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
        return ActivationChunks(self.model, self.tokens, chunk_size=chunk_size, seed=seed, cache=cache, told=told)


_latest: dict[str, Inputs] = {}


def load_inputs(config: Config, device: torch.device) -> Inputs:
    """The inputs of a pack; loaded once for packs that follow each other and share them.

    Raises: ConfigError if the model or the text cannot be used.
    """
    key = json.dumps([model_and_text(config), str(device)], sort_keys=True)
    if key not in _latest:
        _latest.clear()  # before another model is loaded
        _latest[key] = Inputs(config, device)
    return _latest[key]
