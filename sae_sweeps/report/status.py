"""The states of a sweep's points as a person wants to see them: a line, a table, the reasons."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from sae_sweeps.runtime import logs
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, WAITING, State
from sae_sweeps.sweep.sweep_state import SweepStates, read_states

REASON_WIDTH = 28  # characters of what a point waits for
COLORS = {DONE: "green", RUNNING: "cyan", FAILED: "red", INTERRUPTED: "yellow"}


def command(sweep: Sweep) -> str:
    """The command that tells how the sweep gets on."""
    root = "" if str(sweep.folder.parent) == "outputs" else f" output_root={sweep.folder.parent}"
    return f"python launch.py task=status name={sweep.name}{root}"


def summary(seen: SweepStates) -> str:
    """How many points are in which state, in one line."""
    states = [state.state for state in seen.points.values()]
    line = pluralize(len(states), "point")
    for state in (DONE, RUNNING, QUEUED, WAITING, INTERRUPTED, FAILED):
        line += f", {states.count(state)} {state}" * (state in states)
    return line


def table(sweep: Sweep, seen: SweepStates, but: str | None = None) -> Table:
    """A row per point: its state, how far it is, its job, how often that was requeued, what it waits for.

    Points in the state `but` are left out: a screen has only so many lines.
    """
    made = Table(title=f"sweep {escape(sweep.name)}: {summary(seen)}", title_justify="left")
    for title in ("point", "state", "steps", "job", "requeued", ""):
        justify: Any = "right" if title in ("steps", "requeued") else "left"
        made.add_column(title, no_wrap=True, justify=justify, max_width=None if title else REASON_WIDTH)
    for name, state in seen.points.items():
        if state.state == but:
            continue
        training = seen.content["points"][name]["config"]["training"]
        total = training["tokens"] // training["batch_size"]
        done = total if state.state == DONE else state.step
        why = state.reason if state.state in (QUEUED, RUNNING) else None
        cells = [f"{done} of {total}" if done else "", state.job or "", str(state.requeued or ""), why or ""]
        made.add_row(escape(name), f"[{COLORS.get(state.state, 'default')}]{state.state}[/]", *map(escape, cells))
    return made


def show(sweep: Sweep) -> SweepStates:
    """Look at the sweep, show what is seen, and bring the states in sweep.json up to date."""
    seen = read_states(sweep)
    console.print(table(sweep, seen))
    for name, state in seen.points.items():
        if state.state in (FAILED, INTERRUPTED):
            tell(sweep, name, state)
    for task, state in seen.follow_ups.items():
        job = f" (job {state.job})" if state.job else ""
        _print(f"then {task}: {state.state}{job}" + f": {state.reason}" * bool(state.reason))
    if any(state.state in (FAILED, INTERRUPTED, WAITING) for state in seen.points.values()):
        _print("the command that began the sweep, given again, goes on with what is not done")
    if seen.slurm_error is not None:
        _print(f"Slurm does not answer, so this is what the files tell: {seen.slurm_error}", "red")
    sweep.record_states(seen.points, seen.content)
    return seen


def tell(sweep: Sweep, name: str, state: State) -> None:
    """Say why a point failed or was interrupted, and where its log is."""
    log_file = sweep.folder / name / logs.FILE
    where = f" (see {log_file})" if log_file.exists() else ""
    _print(f"{state.state.upper()} {name}" + f": {state.reason}" * bool(state.reason) + where, COLORS.get(state.state))


def _print(line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, soft_wrap=True)
