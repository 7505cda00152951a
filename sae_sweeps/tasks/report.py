"""Task `report`: results.csv, the table on the terminal, report.html; of several sweeps, a page that compares them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.compare_run import compare_run
from sae_sweeps.comparison import Compared, grouped, points_of
from sae_sweeps.config import Config
from sae_sweeps.display import Display, console
from sae_sweeps.errors import reason
from sae_sweeps.files import write_text
from sae_sweeps.report.markdown import markdown
from sae_sweeps.report.page import page
from sae_sweeps.report.terminal import points_table, seeds_table
from sae_sweeps.slurm.watch import states_of
from sae_sweeps.states import DONE, FAILED, QUEUED, RUNNING, State
from sae_sweeps.status import tell
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.progress import telling

log = logging.getLogger(__name__)

PAGE = "report.html"
LONGEST_NAME = 100  # characters of a file's name that list sweeps


def run_sweep(sweep: Sweep, config: Config) -> list[str]:
    """Report on all points of a sweep, or of several whose names are joined by commas, whatever became of them."""
    sweeps = sweeps_of(sweep)
    if config.format == "md":
        points = [point for one in sweeps for point in points_of(one, states_of(one).points)]
        print(markdown(grouped(points)))
        return []
    for one in sweeps:
        found = states_of(one).points
        failures = {name: state.reason or "" for name, state in found.items() if state.state == FAILED}
        _table(one, list(found), failures)
        for name, state in found.items():
            if state.state not in (DONE, FAILED):
                tell(one, name, state)
        one.note_states(found)
    _publish(sweeps, config)
    return []


def sweeps_of(sweep: Sweep) -> list[Sweep]:
    """The sweeps whose names are joined by commas."""
    return [Sweep(sweep.folder.parent / name) for name in dict.fromkeys(sweep.name.split(","))]


def show(sweep: Sweep, config: Config, names: Sequence[str], failures: Mapping[str, str], seconds: float) -> None:
    """What stands at the end of a command: the table of its points, the failures, and where the files are."""
    _table(sweep, names, failures, f"{seconds:.0f} s in all  ")
    refresh(sweep, config)


def refresh(sweep: Sweep, config: Config) -> None:
    """Publish the page anew when nothing of the sweep is under way. What fails here fails nothing else."""
    try:
        states = {state.state for state in states_of(sweep).points.values()}
        if not states & {RUNNING, QUEUED}:
            _publish([sweep], config)
    except Exception as error:
        log.warning("report.html was not written (%s); python launch.py task=report name=%s", reason(error), sweep.name)


def _publish(sweeps: Sequence[Sweep], config: Config) -> None:
    """Write the page, say where it is, and have W&B show it beside the comparison of the sweep."""
    path = write_page(sweeps, config.explorer_mib)
    console.print(f"report: {path}", markup=False, soft_wrap=True)
    if len(sweeps) == 1:
        compare_run(sweeps[0], config.tracking, points_of(sweeps[0], states_of(sweeps[0]).points), path)


def write_page(sweeps: Sequence[Sweep], explorer_mib: float) -> Path:
    """Write the page on one sweep into its folder, or that on several beside their folders. Returns where it is."""
    points: list[Compared] = []
    followed: dict[str, Any] = {}
    for sweep in sweeps:
        points += points_of(sweep, states_of(sweep).points)
        followed |= {f"{sweep.name}: {task}": known for task, known in sweep.read()["followed"].items()}
    names = [sweep.name for sweep in sweeps]
    path = sweeps[0].folder / PAGE
    title = names[0] if names[0].startswith("sweep") else f"sweep {names[0]}"
    if len(sweeps) > 1:
        path = sweeps[0].folder.parent / f"report-{'+'.join(names)[:LONGEST_NAME]}.html"
        title = f"sweeps {', '.join(names)}"
    with Display(1).live() as display:
        line = display.point("report")
        try:
            text = page(title, points, followed, int(explorer_mib * 2**20), telling(line, "pairs of SAEs compared"))
        finally:
            line.close()
    write_text(path, text)
    return path


def _table(sweep: Sweep, names: Sequence[str], failures: Mapping[str, str], time: str = "") -> None:
    """Write results.csv; show what is in it, the failures, and where the files are."""
    path = sweep.write_results_csv()
    points = [point for point in points_of(sweep, states_of(sweep).points) if point.name in names]
    if any(point.results for point in points):
        console.print(points_table(sweep.name, points))
    if (seeds := seeds_table(sweep.name, points)) is not None:
        console.print(seeds)
    for name, why in failures.items():
        tell(sweep, name, State(FAILED, why))
    console.print(f"{time}files: {sweep.folder}/<point>/  table: {path}", markup=False, soft_wrap=True)
