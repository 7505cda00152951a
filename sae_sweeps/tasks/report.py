"""Task `report`: results.csv, the table on the terminal, report.html; of several sweeps, a page that compares them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.report.markdown import markdown
from sae_sweeps.report.page import page
from sae_sweeps.report.status import tell
from sae_sweeps.report.terminal import points_table, seeds_table
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import write_text
from sae_sweeps.runtime.progress import SweepProgress, progress_callback
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.comparison import ComparedPoint, collect_points, group_by_seed
from sae_sweeps.sweep.point_state import DONE, FAILED, QUEUED, RUNNING, State
from sae_sweeps.sweep.sweep_state import read_states
from sae_sweeps.tracking.comparison_run import compare_run

log = logging.getLogger(__name__)

PAGE = "report.html"
LONGEST_NAME = 100  # bytes of a file's name that list sweeps


def run(sweep: Sweep, config: Config) -> list[str]:
    """Report on all points of a sweep, or of several whose names are joined by commas, whatever became of them."""
    looked = [_look(one) for one in sweeps_of(sweep)]
    if config.format == "md":
        print(markdown(group_by_seed([point for one in looked for point in one.points])))
        return []
    for one in looked:
        failed = {point.name: point.state.reason or "" for point in one.points if point.state.state == FAILED}
        _table(one.sweep, one.points, failed)
        for point in one.points:
            if point.state.state not in (DONE, FAILED):
                tell(one.sweep, point.name, point.state)
        one.sweep.record_states({point.name: point.state for point in one.points})
    _publish(looked, config)
    return []


@dataclass(frozen=True)
class Looked:
    """A sweep as it was seen at one moment."""

    sweep: Sweep
    points: list[ComparedPoint]


def _look(sweep: Sweep) -> Looked:
    states = read_states(sweep)
    return Looked(sweep, collect_points(sweep, states.points, states.content))


def sweeps_of(sweep: Sweep) -> list[Sweep]:
    """The sweeps whose names are joined by commas."""
    return [Sweep(sweep.folder.parent / name) for name in dict.fromkeys(sweep.name.split(","))]


def show(sweep: Sweep, names: Sequence[str], failures: Mapping[str, str], seconds: float) -> None:
    """What stands at the end of a command: the table of its points, the failures, and where the files are."""
    seen = {name: point_state.read_state(sweep.folder / name) for name in names}
    _table(sweep, collect_points(sweep, seen), failures, f"{seconds:.0f} s in all  ")


def refresh(sweep: Sweep, config: Config) -> None:
    """Publish the page anew when nothing of the sweep is under way. What fails here fails nothing else."""
    try:
        looked = _look(sweep)
        if not {point.state.state for point in looked.points} & {RUNNING, QUEUED}:
            _publish([looked], config)
    except Exception as error:
        log.warning(
            "report.html was not written (%s); python launch.py task=report name=%s", describe_error(error), sweep.name
        )


def write_page(sweeps: Sequence[Sweep], explorer_mib: float) -> Path:
    """Write the page on one sweep into its folder, or that on several beside their folders. Returns where it is."""
    return _write_page([_look(sweep) for sweep in sweeps], explorer_mib)


def _publish(looked: Sequence[Looked], config: Config) -> None:
    """Write the page, say where it is, and have W&B show it beside the comparison of the sweep."""
    path = _write_page(looked, config.explorer_mib)
    console.print(f"report: {path}", markup=False, soft_wrap=True)
    if len(looked) == 1:
        compare_run(looked[0].sweep, config.tracking, looked[0].points, path)


def _write_page(looked: Sequence[Looked], explorer_mib: float) -> Path:
    sweeps = [one.sweep for one in looked]
    points = [point for one in looked for point in one.points]
    followed = {f"{sweep.name}: {task}": known for sweep in sweeps for task, known in sweep.read()["followed"].items()}
    path, title = sweeps[0].folder / PAGE, sweeps[0].name
    if len(sweeps) > 1:
        names = "+".join(sweep.name for sweep in sweeps)
        if len(names.encode()) > LONGEST_NAME:
            names = hashlib.sha256(names.encode()).hexdigest()[:12]
        path, title = sweeps[0].folder.parent / f"report-{names}.html", ", ".join(sweep.name for sweep in sweeps)
    if not title.startswith("sweep"):
        title = f"sweep{'s' * (len(sweeps) > 1)} {title}"
    with SweepProgress(1).live() as display:
        line = display.add_point("report")
        try:
            told = progress_callback(line, "pairs of SAEs compared")
            text = page(title, points, followed, int(explorer_mib * 2**20), told, sweeps)
        finally:
            line.close()
    write_text(path, text)
    return path


def _table(sweep: Sweep, points: Sequence[ComparedPoint], failures: Mapping[str, str], time: str = "") -> None:
    """Write results.csv; show what is in it, the failures, and where the files are."""
    path = sweep.write_results_csv()
    if any(point.results for point in points):
        console.print(points_table(sweep.name, points))
    if (seeds := seeds_table(sweep.name, points)) is not None:
        console.print(seeds)
    for name, why in failures.items():
        tell(sweep, name, State(FAILED, why))
    console.print(f"{time}files: {sweep.folder}/<point>/  table: {path}", markup=False, soft_wrap=True)
