"""The table of formats. A new one takes a file here and an entry below; CONTRIBUTING.md has the steps."""

from dataclasses import dataclass

from sae_sweeps.formats import dictionary_learning, gemma_scope, saebench, saelens, sparsify
from sae_sweeps.formats.interface import Reader, Writer


@dataclass(frozen=True)
class Format:
    """How a format is read and written; None where it is not."""

    reader: Reader | None = None
    writer: Writer | None = None


# if the files in a folder fit several formats, the first of these is read
FORMATS = {
    "sae_lens": Format(saelens, saelens.WRITER),
    "gemma_scope": Format(gemma_scope),
    "dictionary_learning": Format(dictionary_learning, dictionary_learning.WRITER),
    "sparsify": Format(sparsify, sparsify.WRITER),
    "saebench": Format(writer=saebench.WRITER),
}
READERS = {name: format.reader for name, format in FORMATS.items() if format.reader is not None}
WRITERS = {name: format.writer for name, format in FORMATS.items() if format.writer is not None}
