"""The file documents.safetensors in a point's folder: sums of error and cross-entropy over each held-out document.

results.json has its checksum, so that sums are those that the metrics there are ratios of.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweeps.evaluation.bootstrap import describe_intervals
from sae_sweeps.evaluation.unit_sums import UnitSums
from sae_sweeps.runtime.files import save_tensors, write_atomically
from sae_sweeps.runtime.records import matches
from sae_sweeps.sweep.result_files import FILES, UNIT_SUMS, find_changed


def write_sums(folder: Path, sums: UnitSums | None) -> dict[str, Any] | None:
    """Write the sums of a point into its folder, before its results.json, and return the entry `intervals` there.

    Where there are no sums, a file of before is removed, and None is returned.
    """
    import torch

    if sums is None:
        (folder / UNIT_SUMS).unlink(missing_ok=True)
        return None
    tensors = {name: torch.tensor(sum_U) for name, sum_U in sums.sums.items()}
    with write_atomically(folder / UNIT_SUMS) as path:
        save_tensors(tensors, path, {"unit": sums.unit, "fingerprint": sums.fingerprint})
    return describe_intervals(sums)


def read_sums(folder: Path, results: Mapping[str, Any]) -> UnitSums | None:
    """Return the sums of a point; None if it has none, as points of earlier versions, or if the file was changed since.

    results: the content of the point's results.json
    """
    files: Any = results.get(FILES)
    if not matches(files, {str: str}) or UNIT_SUMS not in files or find_changed(folder, results, [UNIT_SUMS]):
        return None
    from safetensors import safe_open

    with safe_open(folder / UNIT_SUMS, "np") as file:
        about = file.metadata()
        sums = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    return UnitSums(about["unit"], about["fingerprint"], sums)
