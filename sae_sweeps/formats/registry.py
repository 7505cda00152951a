"""The table of SAE file formats. A new format needs a file here and an entry below: see CONTRIBUTING.md."""

from dataclasses import dataclass

from sae_sweeps.formats import dictionary_learning, gemma_scope, gemma_scope_2, saebench, saelens, sparsify
from sae_sweeps.formats.interface import Reader, Writer


@dataclass(frozen=True)
class Format:
    """The reader and writer of a format; None if the format cannot be read, or cannot be written."""

    reader: Reader | None = None
    writer: Writer | None = None


# if the files in a folder fit several formats, the first of these is read
FORMATS = {
    "sae_lens": Format(saelens, saelens.WRITER),
    "gemma_scope": Format(gemma_scope),
    "gemma_scope_2": Format(gemma_scope_2),
    "dictionary_learning": Format(dictionary_learning, dictionary_learning.WRITER),
    "sparsify": Format(sparsify, sparsify.WRITER),
    "saebench": Format(writer=saebench.WRITER),
}
READERS = {name: format.reader for name, format in FORMATS.items() if format.reader is not None}
WRITERS = {name: format.writer for name, format in FORMATS.items() if format.writer is not None}
