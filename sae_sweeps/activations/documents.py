"""Documents of a data set in a fixed order, the split into training and held-out documents, and token sequences.

Document i is held out for evaluation if i is a multiple of `dataset.holdout_every`, so no document is in both splits.
If there is only one document, it is cut into two parts (`split_single`).

The documents of a split are joined, each followed by an end-of-text token if the tokenizer has one, and cut into
sequences. With `dataset.prepend_bos` a sequence is a BOS token and `seq_len - 1` tokens of text.
"""

import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sae_sweeps.activations.reopening import ReopenedRows
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError, first_line

Encode = Callable[[list[str]], list[list[int]]]  # texts -> the token ids of each text
DOCUMENTS_PER_CALL = 64  # documents in one call of the tokenizer


def is_held_out(index: int, holdout_every: int) -> bool:
    """Return whether document number `index`, counted from 0, is held out for evaluation."""
    return index % holdout_every == 0


def find_files(dataset: DatasetConfig) -> list[str]:
    """Return the sorted paths of the files in `dataset.files`. Raises: ConfigError if a glob matches no file."""
    found: list[str] = []
    for pattern in dataset.globs:
        matches = [path for path in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(path)]
        if not matches:
            raise ConfigError(
                "dataset.files", pattern, "matches no file", "check the path, and quote the glob in the shell"
            )
        found += matches
    return sorted(set(found))


def read_documents(dataset: DatasetConfig) -> Iterator[str]:
    """Yield the text of each document of a data set, always in the same order, without documents of only whitespace.

    A text file is one document. JSON, JSON Lines and Parquet files and hub data sets have one document per row, in the
    column `dataset.text_column`.
    Raises: ConfigError if a file, the data set or the column does not exist or cannot be read; BrokenTextError if a row
    after the first cannot be read.
    """
    rows: Iterable[str]
    if dataset.format == "text":
        files = find_files(dataset)
        rows = ReopenedRows(lambda: _read_text_files(files), str, ", ".join(dataset.globs), dataset.retry_seconds)
    else:
        rows = _read_rows(dataset)
    return (text for text in rows if text.strip())


def _read_text_files(files: list[str]) -> Iterator[str]:
    for file in files:
        try:
            data = gzip.decompress(Path(file).read_bytes()) if file.endswith(".gz") else Path(file).read_bytes()
            yield data.decode("utf-8")
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ConfigError(
                "dataset.files",
                file,
                f"is not UTF-8 text, plain or gzipped ({error})",
                "convert the file to UTF-8, or narrow the glob",
            ) from None


def _read_rows(dataset: DatasetConfig) -> Iterator[str]:
    from datasets import config, load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("READ_MAX_RETRIES", "OPEN_MAX_RETRIES"):  # ReopenedRows waits longer, and ends at a signal
        setattr(config, f"STREAMING_{name}", 2)
    for name in ("READ", "OPEN", "READ_SERVER_UNAVAILABLE", "READ_RATE_LIMIT"):
        setattr(config, f"STREAMING_{name}_RETRY_INTERVAL", 1)
    hub = dataset.format == "hub"
    setting, value = ("dataset.name", dataset.name) if hub else ("dataset.files", dataset.files)

    def load() -> Any:
        if hub:
            return load_dataset(dataset.name, dataset.subset, split=dataset.split, streaming=dataset.streaming)
        return load_dataset(dataset.format, data_files=find_files(dataset), split="train", streaming=True)

    def read_text(row: Mapping[str, Any]) -> str:
        if dataset.text_column not in row:
            raise ConfigError(
                "dataset.text_column",
                dataset.text_column,
                f"the text has no such column; the columns are {', '.join(row)}",
                f"dataset.text_column={next(iter(row), 'text')}",
            )
        return str(row[dataset.text_column])

    try:
        yield from ReopenedRows(load, read_text, str(value), dataset.retry_seconds)
    except ConfigError:
        raise
    except (DatasetNotFoundError, ConnectionError, FileNotFoundError) as error:
        raise ConfigError(
            setting,
            value,
            f"cannot be loaded ({first_line(error)})",
            "check the name and the network, or use local files: dataset=text 'dataset.files=folder/*.txt'",
        ) from None
    except (DatasetGenerationError, ValueError) as error:
        raise ConfigError(
            setting,
            value,
            f"cannot be read as {dataset.format} ({first_line(error)})",
            "check the files, or set the format that they have: dataset=text, json or parquet",
        ) from None


def split_single(documents: Iterator[str], holdout_every: int) -> Iterator[str]:
    """Yield several documents unchanged, but a single document as two: first the held-out end, then the text before.

    The held-out end is a share of about 1 / `holdout_every`. The cut is after a line break, or after a space if lines
    are long. No text is lost or repeated.
    """
    first, second = next(documents, ""), next(documents, None)
    if second is not None:
        yield first
        yield second
        yield from documents
        return
    wanted = len(first) - len(first) // holdout_every
    breaks = (first.rfind(mark, wanted // 2, wanted) + 1 for mark in ("\n", " "))
    cut = next((at for at in breaks if at > 0), wanted)
    yield first[cut:]
    yield first[:cut]


def read_split(dataset: DatasetConfig, held_out: bool) -> Iterator[str]:
    """Yield the text of each held-out document, or of each training document if `held_out` is false.

    Raises: ConfigError if a file, the data set or the column does not exist or cannot be read.
    """
    documents = read_documents(dataset)
    if not dataset.streaming:
        documents = split_single(documents, dataset.holdout_every)
    return (text for index, text in enumerate(documents) if is_held_out(index, dataset.holdout_every) == held_out)


def fill_sequences(
    documents: Iterable[str], encode: Encode, bos: int | None, eos: int | None, seq_len: int
) -> Iterator[list[int]]:
    """Yield sequences of exactly `seq_len` token ids, cut from the joined documents.

    Each sequence starts with `bos` and each document ends with `eos`, unless these are None. Tokens at the end that do
    not fill a sequence are dropped.
    """
    start = [] if bos is None else [bos]
    end = [] if eos is None else [eos]
    width = seq_len - len(start)
    pending: list[int] = []
    iterator = iter(documents)
    while texts := list(islice(iterator, DOCUMENTS_PER_CALL)):
        for tokens in encode(texts):
            pending += tokens + end
        full = len(pending) // width * width
        for at in range(0, full, width):
            yield start + pending[at : at + width]
        pending = pending[full:]


def too_short_error(dataset: DatasetConfig, held_out: bool) -> ConfigError:
    """Return the ConfigError for held-out or training text that does not fill one sequence of `dataset.seq_len`."""
    return ConfigError(
        "dataset.seq_len",
        dataset.seq_len,
        f"the {'held-out' if held_out else 'training'} text is shorter than one sequence of {dataset.seq_len} tokens",
        "give more text, or lower dataset.seq_len",
    )
