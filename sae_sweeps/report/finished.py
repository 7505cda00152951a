"""Finished studies of a sweep: their results and tables, and how studies of the same SAEs differ."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sae_sweeps.config.differences import find_differing, flatten, select_text_settings, shorten_paths
from sae_sweeps.config.tasks import STUDY_TASKS
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import read_table
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import read_results
from sae_sweeps.sweep.result_files import find_changed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study. `task`: such as "stitch"; `results`: the content of results.json in `folder`."""

    sweep: Sweep
    task: str
    folder: Path
    results: dict[str, Any]

    def point(self, role: str) -> str:
        """Return the folder name of the point whose SAE has the role sae, small or large in the study."""
        return self.results["study"][role]["point"]

    @property
    def settings(self) -> dict[str, Any]:
        """Return the task settings with which the study ran, such as k of a meta-SAE."""
        return self.results["study"]["settings"]

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the study's table NAME.parquet. `columns`: None for all.

        Raises: ValueError if the file is not the one that the study wrote; OSError or ArrowException if it is missing
        or damaged.
        """
        file = self.folder / f"{name}.parquet"
        if find_changed(self.folder, self.results, [file.name]):
            raise ValueError(f"{file.name} is missing, damaged or of another study: its checksum does not match")
        return read_table(file, columns)


def find_finished(sweep: Sweep) -> list[FinishedStudy]:
    """Return all studies in a sweep's folder that have a readable results.json, by task and folder name."""
    files = [(task, file) for task in STUDY_TASKS for file in sorted((sweep.folder / task).glob("*/results.json"))]
    return [
        FinishedStudy(sweep, task, file.parent, results)
        for task, file in files
        if (results := read_results(file.parent)) is not None and "study" in results
    ]


@contextmanager
def skip_unreadable(folder: Path) -> Iterator[None]:
    """Skip the rest of the `with` body and log a warning if the files of a study are missing or unreadable."""
    try:
        yield
    except Exception as error:  # a table or entry of any kind may be damaged, and Arrow has its own errors
        log.warning("the study in %s cannot be read (%s); the report leaves it out", folder, first_line(error))


def describe_differences(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> str:
    """Return the settings in which a study differs from other studies of the same SAEs, such as ", k 4, seed 1"."""
    saes = {role: sae for role, sae in study.results["study"].items() if isinstance(sae, dict) and "point" in sae}
    same_saes = [
        _flatten_settings(other)
        for other in studies
        if (other.sweep, other.task) == (study.sweep, study.task)
        and all(other.results["study"].get(role, {}).get("point") == sae["point"] for role, sae in saes.items())
    ]
    settings = _flatten_settings(study)
    return "".join(f", {key} {shorten_paths(settings[key])}" for key in find_differing([settings, *same_saes]))


def _flatten_settings(study: FinishedStudy) -> dict[str, Any]:
    return flatten(study.settings) | select_text_settings(study.results["config"])
