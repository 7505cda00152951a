"""Documents of a data set in a fixed order, their split into training and held-out ones, and token sequences from them.

Document i is held out for evaluation if i is a multiple of `dataset.holdout_every`, so no document is in both splits.
A single document is cut in two instead (`split_single`).

The documents of a split are joined, each followed by an end-of-text token if the tokenizer has one, and cut into
sequences. With `dataset.prepend_bos` a sequence is a BOS token and `seq_len - 1` tokens of text.
"""

import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError, first_line

Encode = Callable[[list[str]], list[list[int]]]
DOCUMENTS_PER_CALL = 64  # tokenized together


def is_held_out(index: int, holdout_every: int) -> bool:
    """Return whether document `index` is held out."""
    return index % holdout_every == 0


def find_files(dataset: DatasetConfig) -> list[str]:
    """Return the local files of a data set, sorted. Raises: ConfigError if a glob matches no file."""
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
    """Yield all documents in order, without empty ones.

    A text file is one document; JSON (lines) and Parquet files and hub data sets have one per row, in
    `dataset.text_column`.
    Raises: ConfigError if the files, the data set or the column do not exist.
    """
    rows = _read_text_files(find_files(dataset)) if dataset.format == "text" else _read_rows(dataset)
    return (text for text in rows if text.strip())


def _read_text_files(files: list[str]) -> Iterator[str]:
    for file in files:
        try:
            data = gzip.decompress(Path(file).read_bytes()) if file.endswith(".gz") else Path(file).read_bytes()
            yield data.decode("utf-8")
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ConfigError(
                "dataset.files", file, f"is not UTF-8 text ({error})", "convert it, or narrow the glob"
            ) from None


def _read_rows(dataset: DatasetConfig) -> Iterator[str]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    hub = dataset.format == "hub"
    setting, value = ("dataset.name", dataset.name) if hub else ("dataset.files", dataset.files)
    try:
        if hub:
            rows = load_dataset(dataset.name, dataset.subset, split=dataset.split, streaming=dataset.streaming)
        else:
            rows = load_dataset(dataset.format, data_files=find_files(dataset), split="train", streaming=True)
        for row in rows:
            if dataset.text_column not in row:
                raise ConfigError(
                    "dataset.text_column",
                    dataset.text_column,
                    f"no such column; the columns are {', '.join(row)}",
                    f"dataset.text_column={next(iter(row), 'text')}",
                )
            yield str(row[dataset.text_column])
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
            "check the files, or set their format: dataset=text, json or parquet",
        ) from None


def split_single(documents: Iterator[str], holdout_every: int) -> Iterator[str]:
    """Yield the documents unchanged; if there is only one, two parts of it: its end, which is held out, and the rest.

    The cut is after a line break, or after a space if lines are long. No text is lost or repeated.
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
    """Yield the documents of one split: the held-out ones, or all others."""
    documents = read_documents(dataset)
    if not dataset.streaming:
        documents = split_single(documents, dataset.holdout_every)
    return (text for index, text in enumerate(documents) if is_held_out(index, dataset.holdout_every) == held_out)


def fill_sequences(
    documents: Iterable[str], encode: Encode, bos: int | None, eos: int | None, seq_len: int
) -> Iterator[list[int]]:
    """Yield sequences of exactly `seq_len` tokens; the remainder that does not fill a sequence is dropped."""
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
    """Return the error for a split that does not fill one sequence."""
    return ConfigError(
        "dataset.seq_len",
        dataset.seq_len,
        f"the {'held-out' if held_out else 'training'} text is shorter than one sequence of that many tokens",
        "give more text, or lower dataset.seq_len",
    )
