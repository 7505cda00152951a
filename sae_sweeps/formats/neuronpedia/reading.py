"""Reads a folder in Neuronpedia's import layout back, and checks every field and every reference between its files."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.formats.neuronpedia.schema import (
    BATCH,
    FILES,
    FOLDERS,
    PAIRED,
    STRENGTH,
    VECTOR_HOOKS,
    VECTOR_LENGTH,
)
from sae_sweeps.runtime.records import matches

Row = dict[str, Any]


@dataclass
class _Batch:
    """What the files of one batch must agree on: largest activation and vector of each latent."""

    largest: dict[str, float]
    vectors: list[list[float]]


def check_source(folder: Path) -> dict[str, int]:
    """Check the files of a source: fields, types, values that must agree, and names and latents that refer to others.

    One batch of latents is in memory at a time. Returns the number of lines by folder.
    Raises: ValueError that names the file and the line of the first problem.
    """
    records = {name: _read_one(folder / f"{name}.jsonl", shapes) for name, shapes in FILES.items()}
    _check_names(records)
    source, dimension = records["source"], records["model"]["dimension"]
    counts = dict.fromkeys(FOLDERS, 0)
    files = _list_batches(folder)
    if not files["features"]:
        raise ValueError(f"{folder}: there are no features")
    for number in files["features"]:
        rows = {name: _read_lines(folder / name / _name(number), shapes) for name, shapes in FOLDERS.items()}
        for name, found in rows.items():
            counts[name] += len(found)
            for at, row in enumerate(found, start=1):
                if problem := _find_foreign(row, source):
                    raise ValueError(f"{folder / name / _name(number)}: line {at}: {problem}")
        batch = _check_features(rows["features"], number, dimension, str(source["setName"]))
        _check_activations(rows["activations"], batch.largest)
        _check_ids([*rows["activations"], *rows["explanations"]])
        _check_explanations(rows["explanations"], batch.largest)
        _check_vectors(rows["vectors"], batch.vectors)
    return counts


def read_rows(folder: Path, name: str) -> Iterator[Row]:
    """Yield the lines of a kind, such as features, of a source. Raises: ValueError if a line has other fields."""
    for number in _list_batches(folder)[name]:
        yield from _read_lines(folder / name / _name(number), FOLDERS[name])


def _name(number: int) -> str:
    return f"batch-{number}.jsonl.gz"


def _list_batches(folder: Path) -> dict[str, list[int]]:
    """Return the numbers of the batches of each folder, ascending. Raises: ValueError for other files, or a gap."""
    found: dict[str, list[int]] = {}
    for name in FOLDERS:
        files = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
        numbers = [re.fullmatch(r"batch-(\d+)\.jsonl\.gz", file.name) for file in files]
        if None in numbers:
            raise ValueError(f"{folder / name}: there is a file that is no batch")
        found[name] = sorted(int(match[1]) for match in numbers if match)
    if found["features"] != list(range(len(found["features"]))):
        raise ValueError(f"{folder}: a batch of features is missing")
    for name, batches in found.items():
        if not set(batches) <= set(found["features"]):
            raise ValueError(f"{folder / name}: there is a batch without features")
    return found


def _read_one(path: Path, shapes: Mapping[str, Any]) -> Row:
    rows = _parse_lines(path, path.read_bytes(), shapes)
    if len(rows) != 1:
        raise ValueError(f"{path}: has {len(rows)} lines in place of one")
    return rows[0]


def _read_lines(path: Path, shapes: Mapping[str, Any]) -> list[Row]:
    """Return the lines of a compressed file; none if it does not exist."""
    return _parse_lines(path, gzip.decompress(path.read_bytes()), shapes) if path.exists() else []


def _parse_lines(path: Path, content: bytes, shapes: Mapping[str, Any]) -> list[Row]:
    rows = []
    for number, line in enumerate(content.decode().split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}: line {number} is not JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not an object")
        if differing := sorted(row.keys() ^ shapes.keys()):
            raise ValueError(f"{path}: line {number}: {differing[0]} is missing, or no field")
        for field, shape in shapes.items():
            if not matches(row[field], shape):
                raise ValueError(f"{path}: line {number}: {field} has another type")
        rows.append(row)
    return rows


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _check_names(records: Mapping[str, Row]) -> None:
    """Check that release, model, source set and source name each other."""
    release, model, group, source = (records[name] for name in FILES)
    _require(group["releaseName"] == release["name"], "sourceset: releaseName is not the release's")
    _require(group["modelId"] == source["modelId"] == model["id"], "source or sourceset: modelId is not the model's")
    _require(source["setName"] == group["name"], "source: setName is not the source set's")
    is_named = re.fullmatch(rf"\d+-{re.escape(group['name'])}(__.+)?", source["id"]) is not None
    _require(is_named, "source: id is not LAYER-SET or LAYER-SET__SAE")
    defaults = (release["defaultSourceSetName"], release["defaultSourceId"])
    _require(defaults == (group["name"], source["id"]), "release: the default source is another")
    _require(len({one["creatorId"] for one in records.values()}) == 1, "creatorId differs between files")


def _find_foreign(row: Row, source: Row) -> str | None:
    """Return which of the names of a line are not those of its source; None if all are."""
    expected = {"modelId": source["modelId"], "layer": source["id"]}
    expected |= dict.fromkeys(("creatorId", "authorId"), source["creatorId"])
    return next(
        (f"{name} is not the source's" for name in expected if row.get(name, expected[name]) != expected[name]), None
    )


def _check_features(rows: list[Row], number: int, dimension: int, source_set: str) -> _Batch:
    """Check the features of a batch. Returns what its other files must agree with."""
    batch = _Batch({}, [])
    for at, row in enumerate(rows):
        where = f"features: latent {row['index']}"
        _require(row["index"] == str(number * BATCH + at), f"{where} is not in its place")
        _require(row["sourceSetName"] == source_set, f"{where}: sourceSetName is another")
        _require(0 <= row["frac_nonzero"] <= 1, f"{where}: frac_nonzero is no share")
        for left, right in PAIRED:
            _require(len(row[left]) == len(row[right]), f"{where}: {left} and {right} differ in length")
        _require(row["pos_values"] == sorted(row["pos_values"], reverse=True), f"{where}: pos_values are not in order")
        _require(row["neg_values"] == sorted(row["neg_values"]), f"{where}: neg_values are not in order")
        _require((sum(row["freq_hist_data_bar_heights"]) > 0) == (row["frac_nonzero"] > 0), f"{where}: no histogram")
        has_all = [bool(row["vector"]), row["hookName"] is not None, row["vectorDefaultSteerStrength"] is not None]
        _require(has_all == [row["hasVector"]] * 3, f"{where}: a vector without its hook or strength, or the reverse")
        _require(len(row["vector"]) in (0, dimension), f"{where}: the vector has another width than the model")
        batch.largest[row["index"]] = row["maxActApprox"]
        batch.vectors += [row["vector"]] if row["hasVector"] else []
    _require(0 < len(rows) <= BATCH, f"features: batch {number} has {len(rows)} latents")
    return batch


def _check_activations(rows: list[Row], largest: Mapping[str, float]) -> None:
    """Check the activations of a batch. `largest`: of each latent, as its feature has it"""
    found = dict.fromkeys(largest, 0.0)
    order = {index: at for at, index in enumerate(largest)}
    _require(all(row["index"] in order for row in rows), "activations: a latent is not in the batch")
    _require(sorted(rows, key=lambda row: order[row["index"]]) == rows, "activations: latents are not in order")
    for row in rows:
        where, values = f"activations: {row['id']}", row["values"]
        _require(0 < len(values) == len(row["tokens"]), f"{where}: tokens and values differ in length")
        _require((row["maxValue"], row["minValue"]) == (max(values), min(values)), f"{where}: maxValue or minValue")
        _require(values.index(row["maxValue"]) == row["maxValueTokenIndex"], f"{where}: maxValueTokenIndex")
        _require(row["qualifyingTokenIndex"] in range(len(values)), f"{where}: qualifyingTokenIndex")
        found[row["index"]] = max(found[row["index"]], row["maxValue"])
    _require(found == dict(largest), "features: maxActApprox is not the largest activation")


def _check_ids(rows: list[Row]) -> None:
    ids = [row["id"] for row in rows]
    _require(all(re.fullmatch(r"c[a-z0-9]{24}", one) is not None for one in ids), "an id is no CUID")
    _require(len(set(ids)) == len(ids), "an id is there twice")


def _check_explanations(rows: list[Row], known: Mapping[str, float]) -> None:
    for row in rows:
        _require(row["index"] in known, f"explanations: {row['id']}: the latent is not in the batch")
        _require(bool(row["description"].strip()), f"explanations: {row['id']}: there is no text")


def _check_vectors(rows: list[Row], vectors: list[list[float]]) -> None:
    _require(not rows or [row["vector"] for row in rows] == vectors, "vectors: they are not those of the features")
    for row in rows:
        _require(row["hookType"] in VECTOR_HOOKS, "vectors: Neuronpedia takes no vectors of this hook")
        _require(len(row["vector"]) <= VECTOR_LENGTH, "vectors: a vector is too long")
        _require(abs(row["vectorDefaultSteerStrength"]) <= STRENGTH, "vectors: a strength is too large")
        _require(bool(row["vectorLabel"].strip()), "vectors: there is no label")
