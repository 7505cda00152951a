"""What a task begins with: the device, the language model, the text, and the measurements on held-out text."""

import json
import logging
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch

from sae_sweeps.config import Config
from sae_sweeps.errors import ConfigError, first_line
from sae_sweeps.evaluation import HeldOut, held_out
from sae_sweeps.language.model import LanguageModel
from sae_sweeps.language.tokens import TokenSource

log = logging.getLogger(__name__)


def choose_device(setting: str) -> torch.device:
    """`auto` takes a CUDA device if there is one, else the CPU. Raises: ConfigError if the device is not there."""
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=setting)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("device", setting, f"cannot be used ({first_line(error)})", "device=auto") from None
    return torch.device(setting)


def load_inputs(config: Config, device: torch.device) -> tuple[LanguageModel, TokenSource, HeldOut]:
    """The model, the text and the held-out measurements; loaded once for points that follow each other and share them.

    Raises: ConfigError if the model or the text cannot be used.
    """
    return _load(_Inputs(config), device)


class _Inputs:
    """A configuration that equals another if both need the same model, text and held-out measurements."""

    def __init__(self, config: Config) -> None:
        self.config = config
        needed: dict[str, Any] = {name: asdict(config)[name] for name in ("model", "dataset", "evaluation")}
        self._text = json.dumps(needed, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Inputs) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=1)
def _load(inputs: _Inputs, device: torch.device) -> tuple[LanguageModel, TokenSource, HeldOut]:
    config = inputs.config
    dataset = config.dataset
    model = LanguageModel(config.model, device)
    if dataset.prepend_bos and model.bos is None:
        fix = "dataset.prepend_bos=false"
        raise ConfigError("dataset.prepend_bos", True, "the model's tokenizer has no BOS token", fix)
    tokens = TokenSource(dataset, model.encode, model.bos if dataset.prepend_bos else None, model.eos)
    per_sequence = dataset.seq_len - dataset.first_position
    tokens_NS = tokens.held_out(-(-config.evaluation.tokens // per_sequence))
    log.info("measuring the model itself on %d held-out sequences", len(tokens_NS))
    return model, tokens, held_out(model, tokens_NS, dataset.first_position)
