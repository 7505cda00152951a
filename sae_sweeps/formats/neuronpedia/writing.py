"""Neuronpedia's import layout: an SAE's latents with their strongest activations as gzipped JSON lines, in batches.

release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl    one line each
features/batch-0.jsonl.gz          a line per latent: histograms, frequency, promoted and suppressed tokens, its vector
activations/batch-0.jsonl.gz       a line per example of the same latents, the strongest of each latent first
explanations/batch-0.jsonl.gz      a line per label, if there are any
vectors/batch-0.jsonl.gz           a line per steering vector, as the site takes it, if there are any
"""

import gzip
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sae_sweeps.formats.neuronpedia.records import Row, Source
from sae_sweeps.formats.neuronpedia.schema import BATCH
from sae_sweeps.runtime.files import naming_file, sync, to_json


def write_source(
    folder: Path,
    source: Source,
    batches: Iterable[Sequence[Row]],
    labels: Mapping[int, tuple[str, str | None]],
    read_vectors: Callable[[Sequence[int]], Mapping[int, Sequence[float]]],
    on_batch: Callable[[int], None],
) -> dict[str, int]:
    """Write the files of a source into a folder that is empty. Returns the number of lines by folder.

    batches: rows of a latents table, with columns of `studies.latent_tables.SCHEMA`, BATCH latents at a time
    labels: text and notes by latent
    read_vectors: returns the vectors of those of these latents that have one
    on_batch: called with the number of latents that are written
    """
    for name, record in source.build_records().items():
        _write_lines(folder / f"{name}.jsonl", [record])
    written = {"features": 0, "activations": 0, "explanations": 0, "vectors": 0}
    for number, rows in enumerate(batches):
        assert len(rows) <= BATCH, "a batch has at most BATCH latents"
        vectors = read_vectors([row["latent"] for row in rows])
        for name, lines in _build_batch(source, rows, labels, vectors).items():
            if lines:
                _write_lines(folder / name / f"batch-{number}.jsonl.gz", lines)
                written[name] += len(lines)
        on_batch(written["features"])
    return written


def _build_batch(
    source: Source,
    rows: Sequence[Row],
    labels: Mapping[int, tuple[str, str | None]],
    vectors: Mapping[int, Sequence[float]],
) -> dict[str, list[Row]]:
    """Return the lines of some latents by folder."""
    lines: dict[str, list[Row]] = {"features": [], "activations": [], "explanations": [], "vectors": []}
    for row in rows:
        latent = row["latent"]
        label = labels.get(latent)
        title = f"{source.id} {latent}" + (f": {label[0]}" if label else "")
        listed, strongest = enumerate(row["examples"] or []), row["max_activation"]
        found = [source.build_activation(latent, number, one, strongest) for number, one in listed]
        feature = source.build_feature(row, found, vectors.get(latent, ()), title)
        lines["features"].append(feature)
        lines["activations"] += found
        if label:
            lines["explanations"].append(source.build_explanation(latent, *label))
        if feature["hasVector"] and source.takes_vectors:
            lines["vectors"].append(source.build_vector(feature))
    return lines


def _write_lines(path: Path, rows: Sequence[Row]) -> None:
    """Write JSON lines, compressed if the name ends so: without time and name, so that equal lines are equal bytes."""
    content = "".join(to_json(row, compact=True) + "\n" for row in rows).encode(errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_file(path):
        path.write_bytes(gzip.compress(content, 5, mtime=0) if path.suffix == ".gz" else content)
        sync(path)
