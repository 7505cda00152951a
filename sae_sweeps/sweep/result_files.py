"""The files beside a results.json that the results are about: their checksums, and which have changed since."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sae_sweeps.formats.layout import CONFIG, SAE_FOLDER, WEIGHTS
from sae_sweeps.runtime.files import cached_sha256
from sae_sweeps.runtime.records import matches

FILES = "files"  # entry of results.json: path in the folder -> SHA-256
CHANGED = "changed after results.json was written, so the numbers there may not be of this file"
LARGE = 16 * 2**20  # bytes from which `quick` trusts an inode
UNIT_SUMS = "documents.safetensors"  # sums over held-out documents
PATTERNS = (
    f"{SAE_FOLDER}/{CONFIG}",
    f"{SAE_FOLDER}/{WEIGHTS}",
    "*.parquet",
    "*_eval_results.json",
    "metrics.jsonl",
    UNIT_SUMS,
)


def compute_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the SAE, curve, tables and sums of a point or study, by their paths in its folder."""
    files = sorted(file for pattern in PATTERNS for file in folder.glob(pattern))
    return {str(file.relative_to(folder)): cached_sha256(file) for file in files}


def find_changed(
    folder: Path, results: Mapping[str, Any], names: Collection[str] | None = None, *, quick: bool = False
) -> list[str]:
    """Return which files in a folder are not those that results are about.

    results: the content of results.json of the point or study in the folder, or what a study says of an SAE there. That
        of earlier versions has no checksums, so no file counts as changed
    names: files to check; None for all
    quick: of large files, only read those whose inode changed after results.json was written: a thousand SAEs of some
        hundred MB would take minutes
    """
    files: Any = results.get(FILES)
    if not matches(files, {str: str}):
        return []
    trusted_until = (folder / "results.json").stat().st_ctime_ns if quick else None
    chosen = files if names is None else {name: files[name] for name in names if name in files}
    return [name for name, checksum in chosen.items() if not _is_unchanged(folder / name, checksum, trusted_until)]


def _is_unchanged(file: Path, checksum: str, trusted_until: int | None) -> bool:
    """Return whether a file exists and has a SHA-256; or is large, and its inode has not changed since a time (ns)."""
    try:
        status = file.stat()
        is_trusted = trusted_until is not None and status.st_size > LARGE and status.st_ctime_ns <= trusted_until
        return is_trusted or cached_sha256(file) == checksum
    except OSError:
        return False
