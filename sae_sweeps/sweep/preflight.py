"""Checks of a point before anything is loaded: the values of its settings, and the files and models they name.

All problems are collected, so that one refusal names everything that is wrong with a sweep.
"""

import fcntl
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from sae_sweeps.activations.documents import fill_sequences, read_documents, read_split, too_short_error
from sae_sweeps.activations.excluded import find_token_id
from sae_sweeps.activations.hooks import check_hook
from sae_sweeps.activations.hub import require_dataset_cache, require_repository
from sae_sweeps.activations.hub_rows import check_local_hub_name
from sae_sweeps.activations.labelled_texts import find_probe_sets
from sae_sweeps.activations.model_files import check_model_files, lacks_bos, no_bos_error
from sae_sweeps.activations.model_info import is_local_path, read_model_info
from sae_sweeps.activations.rows import check_file
from sae_sweeps.activations.text_files import find_files
from sae_sweeps.activations.tokenizer_files import check_tokenizer_files, read_tokenizer
from sae_sweeps.config import Config
from sae_sweeps.config.tasks import POINT_TASKS
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError
from sae_sweeps.runtime.storage import explain_storage
from sae_sweeps.sweep.wandb_environment import find_problem

SMALL_TEXT_BYTES = 2**18  # texts below this size are read and tokenized, to check that they fill a sequence
CHECKED_FILES = 1000  # files of a text whose starts are looked at


Check = Callable[[Config], None]


class Preflight:
    """The checks of one command. A check runs once for all points that agree in the settings it reads."""

    def __init__(self) -> None:
        self._outcomes: dict[str, ConfigError | None] = {}

    def find_problems(self, config: Config, checks: Mapping[Check, tuple[str, ...]] | None = None) -> list[ConfigError]:
        """Return every problem of a point; empty if the point can run.

        checks: check -> prefixes of the settings it reads; None for CHECKS, which are all
        """
        problems = find_problems(config)
        for check, settings in (CHECKS if checks is None else checks).items():
            if any(problem.setting.startswith(settings) for problem in problems):
                continue  # the check would fail because of a problem that is already in the list
            error = self._outcome(check, config)
            if error is not None and str(error) not in map(str, problems):  # two checks may read one file
                problems.append(error)
        return problems

    def _outcome(self, check: Check, config: Config) -> ConfigError | None:
        """Return the error of a check; None if the check passes. A check is not repeated for the same settings."""
        read: dict[str, Any] = {name: getattr(config, name) for name in ("name", "output_root", "device")}
        read["plan"] = _is_plan(config)
        read |= {
            name: asdict(getattr(config, name)) for name in ("model", "dataset", "activations", "tracking", "probe")
        }
        read["then"] = config.then
        key = json.dumps([check.__name__, read])
        if key not in self._outcomes:
            self._outcomes[key] = _run_check(check, config)
        return self._outcomes[key]


def _run_check(check: Check, config: Config) -> ConfigError | None:
    try:
        check(config)
    except ConfigError as error:
        return error
    except OSError as error:
        problem, fix = f"cannot be read ({error.strerror})", "make sure that it exists and is readable"
        return ConfigError(CHECKS[check][0].rstrip("."), error.filename, problem, fix)
    return None


def _is_plan(config: Config) -> bool:
    """Return whether the command is task=plan, which accepts an unreachable model or data set (Plan.unverified)."""
    return config.task.name == "plan"


def _check_output(config: Config) -> None:
    _require_writable(Path(config.output_root) / config.name, "output_root")


def _check_cache(config: Config) -> None:
    if config.activations.cache is not None:
        _require_writable(Path(config.activations.cache), "activations.cache")


def _require_writable(folder: Path, setting: str) -> None:
    """Check that the folder, or the closest parent that exists, can be written and supports file locks.

    The test file is removed again. Raises: ConfigError if the folder cannot be written or locked.
    """
    existing = next(level for level in (folder.absolute(), *folder.absolute().parents) if level.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            _require_locks(file.fileno(), existing, setting)
    except OSError as error:
        raise unwritable_error(folder, error, setting) from None


def _require_locks(file: int, folder: Path, setting: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        cause = f"does not support file locks ({error.strerror})"
        problem = f"is on a file system that {cause}, so two processes could train the same point"
        fix = "use a folder on another file system, or mount this file system with lock support"
        raise ConfigError(setting, str(folder), problem, fix) from None


def unwritable_error(folder: Path | str, error: OSError, setting: str = "output_root") -> ConfigError:
    """Return the error to raise for a folder that cannot be written. `setting`: the setting that names the folder."""
    named = OSError(error.errno, error.strerror, str(folder))
    reason = (explain_storage(named) or str(error.strerror)).partition(". ")[0]
    return ConfigError(setting, str(folder), f"cannot be written ({reason})", f"set {setting} to a writable folder")


def _check_model(config: Config) -> None:
    if config.dataset.is_synthetic:
        return
    facts = read_model_info(config.model.name, to_plan=_is_plan(config))
    check_hook(config.model.hook, facts)
    check_model_files(config.model.name)
    check_tokenizer_files(config.model.name)
    if config.dataset.prepend_bos and lacks_bos(config.model.name):
        raise no_bos_error()
    if facts.context is not None and config.dataset.seq_len > facts.context:
        raise ConfigError(
            "dataset.seq_len",
            config.dataset.seq_len,
            f"must be at most {facts.context}, the context length of the model",
            f"dataset.seq_len={facts.context}",
        )


def _check_dataset(config: Config) -> None:
    dataset = config.dataset
    if dataset.is_synthetic:
        return
    if dataset.format == "hub":
        if is_local_path(str(dataset.name)):
            check_local_hub_name(dataset, read=not _is_plan(config))
            return
        try:
            require_dataset_cache(str(dataset.name))
            require_repository("dataset.name", str(dataset.name), "dataset")
        except OutOfReachError:
            if not _is_plan(config):
                raise
        return
    files = find_files(dataset)
    for file in files[:CHECKED_FILES]:
        check_file(dataset, file)
    is_small = sum(os.path.getsize(file) for file in files) < SMALL_TEXT_BYTES
    for _ in islice(read_documents(dataset), None if is_small else 1):
        pass
    if is_small:
        _require_full_sequence(config)


def _require_full_sequence(config: Config) -> None:
    """Check that a small text fills a sequence, if the model's folder has a tokenizer.json to tokenize the text with.

    Raises: ConfigError if the training documents or the held-out documents are too short.
    """
    tokenizer = read_tokenizer(config.model.name)
    if tokenizer is None:
        return

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    for held_out in (True, False):
        documents = read_split(config.dataset, held_out)
        bos, per_document = 0 if config.dataset.prepend_bos else None, config.dataset.has_bos_per_document
        given = (documents, encode, bos, 0, config.dataset.seq_len)
        if next(fill_sequences(*given, bos_per_document=per_document), None) is None:
            raise too_short_error(config.dataset, held_out)


def _check_excluded(config: Config) -> None:
    """Check that the tokens of `dataset.exclude` exist, if the model's folder has a tokenizer.json.

    Raises: ConfigError for the first that does not.
    """
    tokens = config.dataset.excluded_tokens
    tokenizer = read_tokenizer(config.model.name) if tokens else None
    if tokenizer is None:
        return
    for token in tokens:
        find_token_id(
            token,
            config.dataset.exclude,
            tokenizer.get_vocab(),
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        )


def _check_tracking(config: Config) -> None:
    if config.tracking.mode != "off" and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "tracking",
            config.tracking.mode,
            "the package wandb is needed, but it is not installed",
            "pip install wandb, or tracking=off",
        )
    if config.tracking.mode != "off" and (problem := find_problem()) is not None:
        raise problem


def _check_probes(config: Config) -> None:
    """Check that the data sets of a probe that follows the training are there. Raises: ConfigError."""
    if config.task.name in POINT_TASKS and "probe" in config.then:
        find_probe_sets(config.probe)


def _check_device(config: Config) -> None:
    device = config.device
    if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise ConfigError("device", device, "is not a known device", "device=auto, cpu, cuda or cuda:N")


# each check with the settings that it reads (prefixes of their names); skipped if one of them already has a problem
INPUT_CHECKS: dict[Check, tuple[str, ...]] = {  # for commands that read activations
    _check_cache: ("activations.",),
    _check_model: ("model.name",),
    _check_dataset: ("dataset.",),
    _check_excluded: ("dataset.exclude", "model.name"),
    _check_device: ("device",),
}
CHECKS: dict[Check, tuple[str, ...]] = {
    _check_output: ("output_root", "name"),
    **INPUT_CHECKS,
    _check_tracking: ("tracking.",),
    _check_probes: ("probe.", "then"),
}
