"""Reads a sweep once for all outputs of a report: tables, HTML page, results.csv and W&B comparison."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.config.differences import find_swept, flatten, shorten_paths
from sae_sweeps.evaluation.metrics import list_bounds
from sae_sweeps.runtime.files import write_csv
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, collect_points
from sae_sweeps.sweep.result_files import CHANGED
from sae_sweeps.sweep.sweep_state import read_states

log = logging.getLogger(__name__)

# settings that results.json has under a shorter name, which results.csv keeps
ALWAYS = ("sae.architecture", "dict_size", "k", "seed", "model.name", "model.hook")


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep at one moment: all points with states and results, and the content of sweep.json."""

    sweep: Sweep
    points: list[ComparedPoint]
    content: Mapping[str, Any]  # content of sweep.json

    @property
    def outcomes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return state, reason and job of each follow-up task (setting `then`) that has run, by task label."""
        return self.content["followed"]

    @property
    def results_csv(self) -> Path:
        """Return the path of results.csv, whether or not the file exists."""
        return self.sweep.folder / "results.csv"

    def write_results_csv(self) -> None:
        """Write results.csv with one row per finished point, in the order of sweep.json. Paths are shortened.

        Every setting in which points of the sweep differ is a column.
        """
        swept = [name for name in find_swept([point.config for point in self.points]) if name not in ALWAYS]
        rows = []
        for point in self.points:
            if (found := point.results) is not None:
                given = flatten(point.config)
                settings = {name: given.get(name) for name in swept}
                rows.append(
                    {
                        "point": point.name,
                        **found["point"],
                        **settings,
                        **found["metrics"],
                        **list_bounds(found.get("intervals")),
                        **found["training"],
                    }
                )
        write_csv(self.results_csv, shorten_paths(rows))


def load_sweep(sweep: Sweep) -> LoadedSweep:
    """Read a sweep from sweep.json, the folders of the points, and Slurm's queue if points were submitted."""
    seen = read_states(sweep)
    points = collect_points(sweep, seen.points, seen.content)
    for point in points:
        if point.changed:
            log.warning("%s: %s %s", point.name, ", ".join(point.changed), CHANGED)
    return LoadedSweep(sweep, points, seen.content)
