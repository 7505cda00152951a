"""The files of a sweep: sweep.json (its points and their states), results.csv, and the table at the end."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.config import Config
from sae_sweeps.files import read_json, write_json, write_text

RESULTS = "results.json"


class Sweep:
    """The folder `output_root/name`. Its points are kept from command to command; any may add more."""

    def __init__(self, config: Config) -> None:
        self.name = config.name
        self.folder = Path(config.output_root) / config.name

    def add(self, points: dict[str, Config]) -> None:
        """Note the points (folder name -> configuration) that a command is about to run."""

        def change(known: dict[str, Any]) -> None:
            for folder, config in points.items():
                state = "waiting" if read_json(self.folder / folder / RESULTS) is None else "done"
                known[folder] = {"state": state, "reason": None, "config": asdict(config)}

        self._update(change)

    def set_state(self, folder: str, state: str, reason: str | None = None) -> None:
        """States: waiting, running, interrupted, done, failed (with the reason)."""
        self.set_states([folder], state, reason)

    def set_states(self, folders: Iterable[str], state: str, reason: str | None = None) -> None:
        def change(known: dict[str, Any]) -> None:
            for folder in folders:
                known[folder] |= {"state": state, "reason": reason}

        self._update(change)

    def _update(self, change: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".sweep.lock"):
            known = read_json(self.folder / "sweep.json") or {"name": self.name, "points": {}}
            change(known["points"])
            write_json(self.folder / "sweep.json", known)

    def results(self) -> list[dict[str, Any]]:
        """One flat row per finished point, in the order of sweep.json."""
        rows = []
        for folder in (read_json(self.folder / "sweep.json") or {"points": {}})["points"]:
            result = read_json(self.folder / folder / RESULTS)
            if result is not None:
                rows.append({"point": folder, **result["point"], **result["metrics"], **result["training"]})
        return rows

    def write_results_csv(self) -> Path:
        rows = self.results()
        text = io.StringIO()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path = self.folder / "results.csv"
        write_text(path, text.getvalue())
        return path


def report(sweep: Sweep, points: Sequence[str], failures: dict[str, str], seconds: float) -> None:
    """What stands at the end of a command: the table, the failures, and where the files are."""
    from sae_sweeps.display import console, points_table

    path = sweep.write_results_csv()
    rows = [row for row in sweep.results() if row["point"] in points]
    if rows:
        console.print(points_table(sweep.name, rows))
    for folder, reason in failures.items():
        log_file = sweep.folder / folder / "launch.log"
        console.print(f"FAILED {folder}: {reason} (see {log_file})", style="red", markup=False, soft_wrap=True)
    console.print(
        f"{seconds:.0f} s in all  files: {sweep.folder}/<point>/  table: {path}", markup=False, soft_wrap=True
    )
