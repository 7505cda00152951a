"""Documents of a data set in a fixed order, the split into training and held-out documents, and token sequences.

Document i is held out for evaluation if i is a multiple of `dataset.holdout_every`, so no document is in both splits.
If there is only one document, it is cut into two parts (`split_single`).

The documents of a split are joined, each followed by an end-of-text token if the tokenizer has one, and cut into
sequences. With `dataset.prepend_bos` a sequence is a BOS token and `seq_len - 1` tokens of text. With
`dataset.bos=document` as well, a BOS token is the first of each document instead, and no end-of-text token follows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sae_sweeps.activations.hub_rows import read_hub_rows
from sae_sweeps.activations.pieces import Cut, Piece, cut_nothing
from sae_sweeps.activations.reopening import ReopenedRows, take_row
from sae_sweeps.activations.rows import Row, read_file_rows, take_text, warn_once, wrong_column_error
from sae_sweeps.activations.text_files import find_files
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError

Encode = Callable[[list[str]], list[list[int]]]  # texts -> the token ids of each text
DOCUMENTS_PER_CALL = 64  # documents in one call of the tokenizer
CHARACTERS_PER_CALL = 2**19  # characters in one call of the tokenizer, which takes about 150 bytes of memory for each
ROWS_WITHOUT_COLUMN = 10_000  # rows at the start of a text in which the text column must occur


class Place(NamedTuple):
    """Where a document is: the file, or the name of the data set on the hub, and the row in it, counted from 0."""

    source: str
    row: int


class Document(NamedTuple):
    """A document, and where it is."""

    text: str
    place: Place


def is_held_out(index: int, holdout_every: int) -> bool:
    """Return whether document number `index`, counted from 0, is held out for evaluation."""
    return index % holdout_every == 0


def read_documents(dataset: DatasetConfig) -> Iterator[str]:
    """Yield the text of each document of a data set, always in the same order, without documents of only whitespace.

    A text file is one document. JSON, JSON Lines and Parquet files and hub data sets have one document per row, in the
    column `dataset.text_column`; a row that has null there, or no such column, is an empty document.
    Raises: ConfigError if a file, the data set or the column does not exist or cannot be read, if a row holds anything
        but a string, or if there is no document; BrokenTextError if a row after the first cannot be read.
    """
    return (document.text for document in locate_documents(dataset))


def locate_documents(dataset: DatasetConfig) -> Iterator[Document]:
    """Yield each document of a data set as `read_documents` does, with its place."""
    found = False
    for row in _check_columns(dataset, _read_rows(dataset)):
        text = take_text(row, dataset.text_column)
        if text and not text.isspace():
            found = True
            yield Document(text, Place(row.source, row.number))
    if not found:
        raise _no_document_error(dataset)


def _read_rows(dataset: DatasetConfig) -> Iterator[Row]:
    """Yield all rows of a data set. After a failure of the network it is opened again at the row."""
    if dataset.format == "hub":
        return read_hub_rows(dataset)
    files, seconds = find_files(dataset), dataset.retry_seconds
    return iter(ReopenedRows(lambda: _read_file_rows(dataset, files), take_row, ", ".join(dataset.globs), seconds))


def _read_file_rows(dataset: DatasetConfig, files: list[str]) -> Iterator[Row]:
    lacking: list[str] = []  # files of which no row has the text column
    having = 0
    for file in files:
        rows, have_column = 0, False
        for row in read_file_rows(dataset, file):
            rows, have_column = rows + 1, have_column or row.has_column
            yield row
        having += have_column
        if rows and not have_column:
            lacking.append(file)
    if having and lacking:
        more = f", like {len(lacking) - 1} other files," if lacking[1:] else ""
        warn_once(f"{lacking[0]}{more} has no column {dataset.text_column!r}, and therefore no document")


def _check_columns(dataset: DatasetConfig, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows unchanged. Raises: ConfigError if the first rows, or all if there are few, lack the text column."""
    row = None
    for number, row in enumerate(rows, start=1):
        if row.has_column:
            yield row
            yield from rows
            return
        if number == ROWS_WITHOUT_COLUMN:
            break
    if row is not None:
        raise wrong_column_error(row.source, dataset.text_column, row.columns())


def _no_document_error(dataset: DatasetConfig) -> ConfigError:
    """Return the ConfigError for a data set of empty files, or of rows without text."""
    if dataset.format == "hub":
        return ConfigError("dataset.name", dataset.name, "holds no document with text", "choose another data set")
    files = find_files(dataset)
    names = ", ".join(files[:3]) + (f" and {len(files) - 3} more files" if files[3:] else "")
    value = dataset.files if isinstance(dataset.files, str) else ", ".join(dataset.globs)
    return ConfigError("dataset.files", value, f"there is no document with text in {names}", "choose files with text")


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
    documents: Iterable[str],
    encode: Encode,
    bos: int | None,
    eos: int | None,
    seq_len: int,
    cut: Cut = cut_nothing,
    *,
    bos_per_document: bool = False,
    ends: list[int] | None = None,
) -> Iterator[list[int]]:
    """Yield sequences of exactly `seq_len` token ids, cut from the joined documents.

    Each sequence starts with `bos` and each document ends with `eos`, unless these are None. Tokens at the end that do
    not fill a sequence are dropped.
    cut: cuts a document into pieces with the same tokens, so that a large one is not tokenized as a whole
    bos_per_document: start each document with `bos`, wherever that falls in a sequence; do not end it with `eos`
    ends: receives, for each document that has ended, the number of joined tokens up to there
    """
    first = [] if bos is None else [bos]
    start, begin, end = ([], first, []) if bos_per_document else (first, [], [] if eos is None else [eos])
    width = seq_len - len(start)
    pending: list[int] = []
    cut_off = 0  # joined tokens in the sequences so far
    is_begin = True  # whether the next piece begins a document
    for pieces in _group(piece for document in documents for piece in cut(document)):
        for piece, tokens in zip(pieces, encode([piece.text for piece in pieces]), strict=True):
            pending += (begin if is_begin else []) + tokens[piece.skip :] + (end if piece.is_last else [])
            is_begin = piece.is_last
            if ends is not None and piece.is_last:
                ends.append(cut_off + len(pending))
        full = len(pending) // width * width
        for at in range(0, full, width):
            yield start + pending[at : at + width]
        pending = pending[full:]
        cut_off += full


def _group(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces of documents in groups, each for one call of the tokenizer."""
    group: list[Piece] = []
    characters = 0
    for piece in pieces:
        if len(group) == DOCUMENTS_PER_CALL or (group and characters + len(piece.text) > CHARACTERS_PER_CALL):
            yield group
            group, characters = [], 0
        group.append(piece)
        characters += len(piece.text)
    if group:
        yield group


def too_short_error(dataset: DatasetConfig, held_out: bool) -> ConfigError:
    """Return the ConfigError for held-out or training text that does not fill one sequence of `dataset.seq_len`."""
    return ConfigError(
        "dataset.seq_len",
        dataset.seq_len,
        f"the {'held-out' if held_out else 'training'} text is shorter than one sequence of {dataset.seq_len} tokens",
        "give more text, or lower dataset.seq_len",
    )
