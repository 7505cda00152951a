"""Task `report`: writes results.csv and report.html, and prints tables. It can compare several sweeps."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.config.commands import format_command
from sae_sweeps.report.answers import describe_answers
from sae_sweeps.report.contests import find_contests
from sae_sweeps.report.halving import describe_halving
from sae_sweeps.report.loaded import LoadedSweep, load_sweep
from sae_sweeps.report.markdown import format_markdown_table
from sae_sweeps.report.page import build_page
from sae_sweeps.report.status import show_reason
from sae_sweeps.report.summary import make_title
from sae_sweeps.report.terminal import points_table, seeds_table
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import write_text
from sae_sweeps.runtime.progress import SweepProgress, progress_callback
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import group_by_seed
from sae_sweeps.sweep.point_state import DONE, FAILED, PRUNED, QUEUED, RUNNING, State
from sae_sweeps.tasks.labels import keep_labels
from sae_sweeps.tracking.comparison_run import compare_run

log = logging.getLogger(__name__)

PAGE = "report.html"
MAX_NAME_BYTES = 100  # longer lists of sweep names are replaced by a hash in the file name


def run(sweep: Sweep, config: Config) -> list[str]:
    """Print tables of all points of one sweep or of several (name=a,b), and write report.html and results.csv.

    With format=md, only print a Markdown table. Returns an empty list: no part of the task can fail.
    Raises: ConfigError if a line of `latents.labels` is no label.
    """
    keep_labels(split_sweeps(sweep), config)
    sweeps = [load_sweep(one) for one in split_sweeps(sweep)]
    if config.format == "md":
        print(format_markdown_table(group_by_seed([point for loaded in sweeps for point in loaded.points])))
        return []
    for loaded in sweeps:
        loaded.write_results_csv()
    page = _publish(sweeps, config)  # before the tables, which a terminal may fail to show
    for loaded in sweeps:
        failures = {point.name: point.state.reason or "" for point in loaded.points if point.state.state == FAILED}
        _show_tables(loaded, [point.name for point in loaded.points], failures)
        for point in loaded.points:
            if point.state.state not in (DONE, FAILED, PRUNED):
                show_reason(loaded.sweep, point.name, point.state)
        loaded.sweep.record_states({point.name: point.state for point in loaded.points}, loaded.content)
    _show_page(page)
    return []


def split_sweeps(sweep: Sweep) -> list[Sweep]:
    """Return the sweeps that a name such as "a,b" lists, without duplicates."""
    return [Sweep(sweep.folder.parent / name) for name in dict.fromkeys(sweep.name.split(","))]


def show(
    loaded: LoadedSweep, names: Sequence[str], failures: Mapping[str, str], seconds: float, config: Config
) -> None:
    """Write the report of a finished command, unless `then` did; print its points, failures and files.

    names: folder names of the points that the command ran
    failures: folder name of a failed point -> reason
    seconds: duration of the command
    """
    page = None if "report" in config.then else _rewrite(loaded, config)  # before the terminal, which may fail
    _show_tables(loaded, names, failures, f"total time: {seconds:.0f} s  ")
    _show_page(page)


def refresh(sweep: Sweep, config: Config) -> None:
    """Write results.csv and report.html of a sweep again, and print the path; see `_rewrite`."""
    _show_page(_rewrite(sweep, config))


def _rewrite(sweep: Sweep | LoadedSweep, config: Config) -> Path | None:
    """Write results.csv and, unless a point is running or queued, report.html again. Returns the path of the report.

    If that fails, a warning is logged, nothing is raised, and None is returned.
    """
    try:
        loaded = load_sweep(sweep) if isinstance(sweep, Sweep) else sweep
        loaded.write_results_csv()
        if not {point.state.state for point in loaded.points} & {RUNNING, QUEUED}:
            return _publish([loaded], config)
    except Exception as error:
        of = sweep if isinstance(sweep, Sweep) else sweep.sweep
        command = format_command("report", of.name, of.folder.parent)
        log.warning("%s was not written (%s); to try again: %s", PAGE, describe_error(error), command)
    return None


def write_page(sweeps: Sequence[LoadedSweep], explorer_mib: float) -> Path:
    """Write the HTML report on one sweep into the sweep's folder, or on several sweeps next to their folders.

    explorer_mib: MiB that the latent explorer may take in the file

    Returns the path of the HTML file.
    """
    points = [point for loaded in sweeps for point in loaded.points]
    outcomes = {
        f"{loaded.sweep.name}: {task}": outcome for loaded in sweeps for task, outcome in loaded.outcomes.items()
    }
    path = _locate_page([loaded.sweep for loaded in sweeps])
    title = make_title([loaded.sweep.name for loaded in sweeps], points)
    with SweepProgress(1).live() as display:
        line = display.add_point("report")
        try:
            on_progress = progress_callback(line, "pairs of SAEs compared")
            max_bytes = int(explorer_mib * 2**20)
            text = build_page(title, points, outcomes, max_bytes, on_progress, [loaded.sweep for loaded in sweeps])
        finally:
            line.close()
    write_text(path, text)
    return path


def _publish(sweeps: Sequence[LoadedSweep], config: Config) -> Path:
    """Write the HTML report, add it to the comparison run in W&B if there is one sweep, and return its path."""
    path = write_page(sweeps, config.explorer_mib)
    if len(sweeps) == 1:
        compare_run(sweeps[0].sweep, config.tracking, sweeps[0].points, path)
    return path


def _show_page(path: Path | None) -> None:
    if path is not None:
        console.print(f"report: {path}", markup=False, soft_wrap=True)


def _locate_page(sweeps: Sequence[Sweep]) -> Path:
    """Return the path of the HTML report on these sweeps."""
    if len(sweeps) == 1:
        return sweeps[0].folder / PAGE
    names = "+".join(sweep.name for sweep in sweeps)
    if len(names.encode()) > MAX_NAME_BYTES:
        names = hashlib.sha256(names.encode()).hexdigest()[:12]
    return sweeps[0].folder.parent / f"report-{names}.html"


def _show_tables(loaded: LoadedSweep, names: Sequence[str], failures: Mapping[str, str], prefix: str = "") -> None:
    """Print the table of the named points, the reasons of failures, and the paths of the files.

    failures: folder name of a failed point -> reason
    prefix: text before the paths
    """
    wanted = set(names)
    points = [point for point in loaded.points if point.name in wanted]
    if any(point.results for point in points):
        console.print(points_table(loaded.sweep.name, points))
    if (seeds := seeds_table(loaded.sweep.name, points)) is not None:
        console.print(seeds)
    for line in [*describe_answers(find_contests(points)), *describe_halving(points)]:
        console.print(line, markup=False, highlight=False)
    for name, reason in failures.items():
        show_reason(loaded.sweep, name, State(FAILED, reason))
    console.print(
        f"{prefix}files: {loaded.sweep.folder}/<point>/  table: {loaded.results_csv}", markup=False, soft_wrap=True
    )
