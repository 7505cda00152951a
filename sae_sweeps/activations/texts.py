"""The text of a stream in Python: documents, files, or a data set, as the settings of a data set."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sae_sweeps.activations.rows import name_type, replace_surrogates
from sae_sweeps.activations.text_files import strip_compression
from sae_sweeps.config import DatasetConfig
from sae_sweeps.config.presets import load_preset
from sae_sweeps.runtime.errors import ConfigError

FORMATS = {  # of a text, by file suffix
    ".txt": "text",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}


def choose_text(
    texts: Sequence[str] | None, files: str | Path | Sequence[str | Path] | None, dataset: str | DatasetConfig | None
) -> tuple[DatasetConfig, TemporaryDirectory[str] | None]:
    """Return the text as a data set, and the temporary folder that holds `texts`; None for `files` and `dataset`.
    Raises: ConfigError if not exactly one of the three is given, or if the format is not known."""
    values = {"texts": texts, "files": files, "dataset": dataset}
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        fix = "give exactly one of texts=, files= and dataset="
        raise ConfigError("text", " and ".join(given) or None, "a stream needs exactly one text", fix)
    if texts is not None:
        return _write_texts(texts)
    if files is not None:
        patterns = [str(files)] if isinstance(files, str | Path) else [str(each) for each in files]
        paths = patterns[0] if isinstance(files, str | Path) else patterns
        return DatasetConfig(format=_find_format(patterns), files=paths), None
    assert dataset is not None, "exactly one of texts, files and dataset is given"
    return dataset if isinstance(dataset, DatasetConfig) else load_preset("dataset", dataset, DatasetConfig), None


def _write_texts(texts: Sequence[str]) -> tuple[DatasetConfig, TemporaryDirectory[str]]:
    """Write documents to a temporary folder, and return the data set.

    Raises: ConfigError if not all are strings, or if none has text.
    """
    fix = "texts=[document, another, ...]"
    if isinstance(texts, str | bytes):
        raise ConfigError("texts", type(texts).__name__, "must be a list of strings", fix)
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            problem = f"must be a list of strings, but texts[{number}] is {name_type(text)}"
            raise ConfigError("texts", type(texts).__name__, problem, fix)
    if not any(text.strip() for text in texts):
        raise ConfigError("texts", type(texts).__name__, f"no text in {len(texts)} documents", fix)
    texts = [replace_surrogates(text, f"texts[{number}]") for number, text in enumerate(texts)]
    folder = TemporaryDirectory(prefix="sae-sweeps-")
    file = Path(folder.name) / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return DatasetConfig(format="json", files=str(file)), folder


def _find_format(patterns: Sequence[str]) -> str:
    """Return the format of files by suffix. Raises: ConfigError if the suffix is unknown or not the same for all."""
    suffixes = {Path(strip_compression(pattern)).suffix for pattern in patterns}
    if len(suffixes) != 1 or (suffix := suffixes.pop()) not in FORMATS:
        fix = "dataset=DatasetConfig(format=..., files=...)"
        raise ConfigError("files", ", ".join(patterns), f"must all end in the same one of {', '.join(FORMATS)}", fix)
    return FORMATS[suffix]
