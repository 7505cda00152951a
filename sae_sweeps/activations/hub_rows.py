"""Rows of a data set on the Hugging Face hub, or in a folder of that form, through the library `datasets`."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from sae_sweeps.activations.reopening import ReopenedRows
from sae_sweeps.activations.rows import Row, name_type, take_text, wrong_column_error
from sae_sweeps.config import DatasetConfig
from sae_sweeps.config.commands import format_setting
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import BrokenTextError, ConfigError, first_line
from sae_sweeps.runtime.storage import FULL, error_number


def read_hub_rows(dataset: DatasetConfig) -> Iterator[Row]:
    """Yield the rows of a data set of format hub, with the text column alone.

    Raises: ConfigError if the data set, its configuration, its split or the column cannot be loaded; BrokenTextError if
        a row after the first cannot be read.
    """
    name, column = str(dataset.name), dataset.text_column

    def read(row: Mapping[str, object], number: int) -> Row:
        return Row(name, number, row.get(column), column in row, partial(_name_types, row))

    try:
        yield from ReopenedRows(lambda: _load_column(dataset), read, name, dataset.retry_seconds)
    except (ConfigError, BrokenTextError, signals.Stopped):
        raise
    except Exception as error:  # of any type: from the library, from those that it calls, and from the network
        if error_number(error) in FULL:
            raise
        raise explain_failure(dataset, error) from None


def _load_column(dataset: DatasetConfig) -> Any:
    """Load the text column alone. Raises: ConfigError if the data set has no such column of strings."""
    rows, column = _load(dataset), dataset.text_column
    features = getattr(rows, "features", None)
    if features is None:
        return rows
    types = {each: _name_feature(feature) for each, feature in features.items()}
    if types.get(column) not in ("a string", "null"):
        raise wrong_column_error(str(dataset.name), column, types)
    return rows.select_columns([column])  # other columns would be decoded too, images and sounds among them


def _load(dataset: DatasetConfig) -> Any:
    from datasets import config, load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("READ_MAX_RETRIES", "OPEN_MAX_RETRIES"):  # ReopenedRows waits longer, and ends at a signal
        setattr(config, f"STREAMING_{name}", 2)
    for name in ("READ", "OPEN", "READ_SERVER_UNAVAILABLE", "READ_RATE_LIMIT"):
        setattr(config, f"STREAMING_{name}_RETRY_INTERVAL", 1)
    return load_dataset(dataset.name, dataset.subset, split=dataset.split, streaming=dataset.streaming)


def _name_types(row: Mapping[str, object]) -> dict[str, str]:
    return {name: name_type(value) for name, value in row.items()}


def _name_feature(feature: Any) -> str:
    """Return what a column holds, for a message: "a string", "null", or the name of the type."""
    kind = getattr(feature, "dtype", None) if type(feature).__name__ == "Value" else type(feature).__name__
    return "a string" if kind in ("string", "large_string", "string_view") else str(kind)


def explain_failure(dataset: DatasetConfig, error: Exception) -> ConfigError:
    """Return the ConfigError for an exception of `datasets`, with a fix that is chosen by the cause."""
    causes = _find_causes(error)
    text = "\n".join(map(str, causes))
    for cause in causes:
        if isinstance(cause, ImportError) and (package := _find_package(cause)):
            problem = f"needs the Python package {package} ({first_line(cause)})"
            return ConfigError("dataset.name", dataset.name, problem, f"pip install {package}")
        if isinstance(cause, PermissionError):
            fix = "make sure that you may read it, and write to the cache (HF_HOME)"
            return ConfigError("dataset.name", dataset.name, f"cannot be loaded ({cause})", fix)
    if "BuilderConfig" in text or "Config name is missing" in text:
        problem = "the data set has no such configuration" if dataset.subset else "the data set needs a configuration"
        return _choice_error("dataset.subset", dataset.subset, problem, text)
    if "Bad split" in text or "Unknown split" in text:
        return _choice_error("dataset.split", dataset.split, "the data set has no such split", text)
    if "Dataset scripts are no longer supported" in text:
        problem = "is a program that makes a data set, and such programs are not run"
        fix = "choose a copy of it that holds files such as Parquet, or download its files and use dataset=parquet"
        return ConfigError("dataset.name", dataset.name, problem, fix)
    if os.path.isdir(str(dataset.name)):
        return folder_error(dataset, f"cannot be read as a data set ({first_line(error)})")
    fix = "check the name and the network, or use local files: dataset=text 'dataset.files=folder/*.txt'"
    return ConfigError("dataset.name", dataset.name, f"cannot be loaded ({first_line(error)})", fix)


def _find_causes(error: BaseException | None) -> list[BaseException]:
    """Return an exception and those that it was raised from, the last one first."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return causes


def _find_package(error: ImportError) -> str | None:
    """Return the package that an ImportError asks for; None if it names none."""
    if match := re.search(r"install '?\"?`?(?:pip install )?([A-Za-z][\w.\-]*(?:\[\w+\])?)", str(error)):
        return match[1]
    return error.name


def _choice_error(setting: str, value: str | None, problem: str, text: str) -> ConfigError:
    """Return the ConfigError for a name that the data set does not have. `text`: the messages that list the names."""
    listed = re.search(r"(?:Available[^\[]*|available configs[^\[]*|Should be one of )\[([^\]]*)\]", text)
    names = re.findall(r"['\"]([^'\"]+)['\"]", listed[1]) if listed else []
    if not names:
        return ConfigError(setting, value, problem, f"set {setting} to one that the page of the data set lists")
    shown = ", ".join(names[:20]) + (", ..." if names[20:] else "")
    return ConfigError(setting, value, f"{problem}; it has {shown}", format_setting(setting, names[0]))


def check_local_hub_name(dataset: DatasetConfig, *, read: bool = True) -> None:
    """Check a data set of format hub whose name is a path here: that it is a folder, and that its first row is text.

    read: whether to look at the first row, for which `datasets` imports torch

    Raises: ConfigError.
    """
    name = str(dataset.name)
    if os.path.isfile(name):
        fix = f"dataset=json, text or parquet, with {format_setting('dataset.files', name)}"
        raise ConfigError("dataset.name", name, "is a file, and not a data set on the hub", fix)
    if not os.path.isdir(name):
        raise ConfigError("dataset.name", name, "there is no such folder", "check the path, or give a name on the hub")
    if read and re.fullmatch(r"[\w.\-]+", dataset.split):  # a part of a split cannot be streamed
        for row in islice(read_hub_rows(replace(dataset, streaming=True)), 1):
            take_text(row, dataset.text_column)


def folder_error(dataset: DatasetConfig, problem: str) -> ConfigError:
    """Return the ConfigError for `dataset.name` that is a folder here, which hides a hub name of this spelling."""
    fix = (
        "if the data set on the hub is meant, rename this folder or run in another one; "
        "for the files in it, set for example dataset=json 'dataset.files=FOLDER/*.jsonl'"
    )
    return ConfigError("dataset.name", dataset.name, f"is a folder here, which {problem}", fix)
