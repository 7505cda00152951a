"""Prints the states of a sweep's points: a summary line, a table, and the reasons of failures."""

from typing import Any

from rich.table import Table
from rich.text import Text

from sae_sweeps.config.commands import format_command
from sae_sweeps.report.terminal import swept_columns
from sae_sweeps.runtime import logs
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, PRUNED, QUEUED, RUNNING, WAITING, State
from sae_sweeps.sweep.sweep_state import SweepStates, read_states

REASON_WIDTH = 28  # width in characters of the table's last column, the reason of the state
COLORS = {DONE: "green", RUNNING: "cyan", FAILED: "red", INTERRUPTED: "yellow"}


def command(sweep: Sweep) -> str:
    """Return the task=status command that prints the states of the sweep's points."""
    return format_command("status", sweep.name, sweep.folder.parent)


def summary(seen: SweepStates) -> str:
    """Return one line with the number of points in each state."""
    states = [state.state for state in seen.points.values()]
    line = pluralize(len(states), "point")
    for state in (DONE, PRUNED, RUNNING, QUEUED, WAITING, INTERRUPTED, FAILED):
        line += f", {states.count(state)} {state}" * (state in states)
    return line


def table(sweep: Sweep, seen: SweepStates, hidden: str | None = None) -> Table:
    """Build a table with a row per point: what was swept, state, finished steps, Slurm job, requeues, and reason.

    Columns without a single entry are left out.

    hidden: state of points to leave out; None to list all points
    """
    configs = {name: seen.content["points"][name]["config"] for name in seen.points}
    swept = {
        title: dict(zip(configs, cells, strict=True)) for title, cells in swept_columns([*configs.values()]).items()
    }
    rows: list[list[Any]] = []
    for name, state in seen.points.items():
        if state.state == hidden:
            continue
        training = configs[name]["training"]
        total = training["tokens"] // training["batch_size"]
        done = total if state.state == DONE else state.step
        reason = state.reason if state.state in (QUEUED, RUNNING) else None
        cells = [f"{done} of {total}" if done else "", state.job or "", str(state.requeued or ""), reason or ""]
        settings = [cells[name] for cells in swept.values()]
        rows.append([name, *settings, Text(state.state, COLORS.get(state.state, "default")), *cells])
    built = Table(title=f"sweep {sweep.name}: {summary(seen)}", title_justify="left")
    titles = ["point", *swept, "state", "steps", "job", "requeued", ""]
    shown = [at for at, title in enumerate(titles) if title in ("point", "state") or any(row[at] for row in rows)]
    for at in shown:
        justify: Any = "right" if titles[at] in (*swept, "steps", "requeued") else "left"
        built.add_column(titles[at], no_wrap=True, justify=justify, max_width=None if titles[at] else REASON_WIDTH)
    for row in rows:
        built.add_row(*[row[at] for at in shown])
    return built


def show(sweep: Sweep) -> SweepStates:
    """Print and return the states of all points and follow-up tasks, and update the states in sweep.json."""
    seen = read_states(sweep)
    console.print(table(sweep, seen))
    for name, state in seen.points.items():
        if state.state in (FAILED, INTERRUPTED):
            show_reason(sweep, name, state)
    for task, state in seen.follow_ups.items():
        job = f" (job {state.job})" if state.job else ""
        _print(f"then {task}: {state.state}{job}" + f": {state.reason}" * bool(state.reason))
    if any(state.state in (FAILED, INTERRUPTED, WAITING) for state in seen.points.values()):
        _print("rerun the original command to resume unfinished points")
    if seen.slurm_error is not None:
        _print(f"Slurm does not answer, so these states come from the points' folders alone: {seen.slurm_error}", "red")
    sweep.record_states(seen.points, seen.content)
    return seen


def show_reason(sweep: Sweep, name: str, state: State) -> None:
    """Print the state of a point, the reason for it, and the path of the point's log if there is one."""
    log_file = sweep.folder / name / logs.FILE
    where = f" (see {log_file})" if log_file.exists() else ""
    _print(f"{state.state.upper()} {name}" + f": {state.reason}" * bool(state.reason) + where, COLORS.get(state.state))


def _print(line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, soft_wrap=True)
