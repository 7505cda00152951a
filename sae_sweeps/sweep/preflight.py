"""What can be checked of a point before anything is loaded: its values, and the files that they name.

All problems are gathered, so that a sweep is refused once, with everything that is wrong with it.
"""

import fcntl
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sae_sweeps.activations.documents import fill_sequences, find_files, read_split, too_short_error
from sae_sweeps.activations.hooks import check_hook
from sae_sweeps.activations.hub import require_repository
from sae_sweeps.activations.model_info import is_local_path, read_model_info
from sae_sweeps.config import Config
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError

SMALL_TEXT_BYTES = 2**18  # text small enough to be tokenized here, to see whether it fills a sequence


Look = Callable[[Config], None]


def check(config: Config, looks: Mapping[Look, tuple[str, ...]] | None = None) -> list[ConfigError]:
    """Every problem of a point; empty if it can be run. `looks`: of what has to be looked at, only this."""
    found = find_problems(config)
    for look, settings in (LOOKS if looks is None else looks).items():
        if any(problem.setting.startswith(settings) for problem in found):
            continue  # what is named there is wrong already
        if (error := _outcome(look, config)) is not None:
            found.append(error)
    return found


_outcomes: dict[str, ConfigError | None] = {}


def _outcome(look: Look, config: Config) -> ConfigError | None:
    """What `look` finds; asked once for all points of a sweep that do not differ in what it looks at."""
    seen: dict[str, Any] = {name: getattr(config, name) for name in ("name", "output_root", "device")}
    seen["plans"] = _plans(config)
    seen |= {name: asdict(getattr(config, name)) for name in ("model", "dataset", "activations", "tracking")}
    key = json.dumps([look.__name__, seen])
    if key not in _outcomes:
        try:
            look(config)
            _outcomes[key] = None
        except ConfigError as error:
            _outcomes[key] = error
        except OSError as error:
            setting = LOOKS[look][0].rstrip(".")
            _outcomes[key] = ConfigError(
                setting, error.filename, f"cannot be read ({error.strerror})", "check the file"
            )
    return _outcomes[key]


def _plans(config: Config) -> bool:
    """Whether nothing is to be run. A plan says what it could not look at (plan.py), and takes it to be there."""
    return config.task.name == "plan"


def _output(config: Config) -> None:
    _try_to_write(Path(config.output_root) / config.name, "output_root")


def _cache(config: Config) -> None:
    if config.activations.cache is not None:
        _try_to_write(Path(config.activations.cache).expanduser(), "activations.cache")


def _try_to_write(folder: Path, setting: str) -> None:
    """Whether the folder, or what would become its parent, can be written and locked; nothing is left behind."""
    there = next(level for level in (folder.absolute(), *folder.absolute().parents) if level.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            _try_to_lock(file.fileno(), there, setting)
    except OSError as error:
        raise unwritable(folder, error, setting) from None


def _try_to_lock(file: int, folder: Path, setting: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        problem = f"is on a file system without locks ({error.strerror}), which keep two processes off one point"
        raise ConfigError(setting, str(folder), problem, "another file system, or mount it with locks") from None


def unwritable(folder: Path | str, error: OSError, setting: str = "output_root") -> ConfigError:
    problem, fix = f"cannot be written ({error.strerror})", f"point {setting} at a writable folder"
    return ConfigError(setting, str(folder), problem, fix)


def _model(config: Config) -> None:
    facts = read_model_info(config.model.name, to_plan=_plans(config))
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
    if dataset.format == "hub":
        if not Path(str(dataset.name)).exists():
            try:
                require_repository("dataset.name", str(dataset.name), "dataset")
            except OutOfReachError:
                if not _plans(config):
                    raise
        return
    files = find_files(dataset)
    size = sum(os.path.getsize(file) for file in files)
    if dataset.format == "text" and size < SMALL_TEXT_BYTES:
        _fills_a_sequence(config)


def _fills_a_sequence(config: Config) -> None:
    """Tokenize a small text for real, where the model's folder has a tokenizer.json to do it with."""
    tokenizer_file = Path(config.model.name).expanduser() / "tokenizer.json"
    if not is_local_path(config.model.name) or not tokenizer_file.is_file():
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    for held_out in (True, False):
        documents = read_split(config.dataset, held_out)
        bos = 0 if config.dataset.prepend_bos else None
        if next(fill_sequences(documents, encode, bos, eos=0, seq_len=config.dataset.seq_len), None) is None:
            raise too_short_error(config.dataset, held_out)


def _tracking(config: Config) -> None:
    if config.tracking.mode != "off" and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "tracking", config.tracking.mode, "wandb is not installed", "pip install wandb, or tracking=off"
        )


def _device(config: Config) -> None:
    device = config.device
    if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise ConfigError("device", device, "is no device", "device=auto, cpu, cuda or cuda:N")


# what is looked at, and the settings that are too wrong to look if one of them has a problem already
INPUTS: dict[Look, tuple[str, ...]] = {  # of activations
    _cache: ("activations.",),
    _model: ("model.name",),
    _dataset: ("dataset.",),
    _device: ("device",),
}
LOOKS: dict[Look, tuple[str, ...]] = {_output: ("output_root", "name"), **INPUTS, _tracking: ("tracking.",)}
