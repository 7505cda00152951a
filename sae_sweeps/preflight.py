"""What can be checked of a point before anything is loaded: its values, and the files that they name.

All problems are gathered, so that a sweep is refused once, with everything that is wrong with it.
"""

import importlib.util
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from sae_sweeps.config import Config, problems
from sae_sweeps.errors import ConfigError
from sae_sweeps.language.documents import find_files, pack, side, too_short
from sae_sweeps.language.hub import require_repository
from sae_sweeps.language.model_files import check_hook, looks_local, model_facts

SMALL_TEXT_BYTES = 2**18  # text small enough to be tokenized here, to see whether it fills a sequence


def check(config: Config) -> list[ConfigError]:
    """Every problem of a point; empty if it can be run."""
    found = problems(config)
    for look in (_output, _model, _dataset, _tracking, _device):
        try:
            look(config)
        except ConfigError as error:
            found.append(error)
    return found


def _output(config: Config) -> None:
    folder = Path(config.output_root).expanduser() / config.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path | str, error: OSError) -> ConfigError:
    return ConfigError(
        "output_root", str(folder), f"cannot be written ({error.strerror})", "point output_root at a writable folder"
    )


# points of a sweep mostly name the same model and data set: ask once
_facts = lru_cache(maxsize=None)(model_facts)
_repository = lru_cache(maxsize=None)(require_repository)


def _model(config: Config) -> None:
    facts = _facts(config.model.name)
    check_hook(config.model.hook, facts)
    if facts.context is not None and config.dataset.seq_len > facts.context:
        raise ConfigError(
            "dataset.seq_len",
            config.dataset.seq_len,
            f"the model reads at most {facts.context} tokens",
            f"dataset.seq_len={facts.context}",
        )


def _dataset(config: Config) -> None:
    dataset = config.dataset
    if dataset.format == "hub" and dataset.name is not None and not Path(dataset.name).exists():
        _repository("dataset.name", dataset.name, "dataset")
    if dataset.format == "hub" or not dataset.globs:
        return
    files = find_files(dataset)
    size = sum(os.path.getsize(file) for file in files)
    if dataset.format == "text" and size < SMALL_TEXT_BYTES:
        _fills_a_sequence(config)


def _fills_a_sequence(config: Config) -> None:
    """Tokenize a small text for real, where the model's folder has a tokenizer.json to do it with."""
    tokenizer_file = Path(config.model.name).expanduser() / "tokenizer.json"
    if not looks_local(config.model.name) or not tokenizer_file.is_file() or config.dataset.seq_len < 2:
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    for held_out in (True, False):
        documents = side(config.dataset, held_out)
        bos = 0 if config.dataset.prepend_bos else None
        if next(pack(documents, encode, bos, eos=0, seq_len=config.dataset.seq_len), None) is None:
            raise too_short(config.dataset, held_out)


def _tracking(config: Config) -> None:
    if config.tracking.mode != "off" and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "tracking", config.tracking.mode, "wandb is not installed", "pip install wandb, or tracking=off"
        )


def _device(config: Config) -> None:
    device = config.device
    if device not in ("auto", "cpu", "mps", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise ConfigError("device", device, "is no device", "device=auto, cpu, cuda, cuda:N or mps")
