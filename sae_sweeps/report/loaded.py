"""A sweep read once: the tables, the page, results.csv and the W&B comparison are all made from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import write_csv
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, collect_points
from sae_sweeps.sweep.sweep_state import read_states


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep as it was at one moment: all of its points with states and results, and its sweep.json."""

    sweep: Sweep
    points: list[ComparedPoint]
    content: Mapping[str, Any]  # of sweep.json

    @property
    def outcomes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the state, reason and job of each follow-up task that has run."""
        return self.content["followed"]

    def write_results_csv(self) -> Path:
        """Write results.csv, one flat row per finished point in the order of sweep.json. Returns its path."""
        done = [(point.name, point.results) for point in self.points if point.results is not None]
        rows = [{"point": name, **found["point"], **found["metrics"], **found["training"]} for name, found in done]
        path = self.sweep.folder / "results.csv"
        write_csv(path, rows)
        return path


def load_sweep(sweep: Sweep) -> LoadedSweep:
    """Read sweep.json, the folders of its points, and Slurm's queue if points were submitted."""
    seen = read_states(sweep)
    return LoadedSweep(sweep, collect_points(sweep, seen.points, seen.content), seen.content)
