"""Shows the progress of a sweep's jobs until the last one has ended, for `hydra.launcher.wait=true`."""

import time

from rich.live import Live

from sae_sweeps.report import status
from sae_sweeps.runtime.console import console
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import DONE, QUEUED, RUNNING
from sae_sweeps.sweep.sweep_state import SweepStates, read_states

SECONDS_BETWEEN_QUERIES = 5.0  # not shorter, because all users of a cluster share slurmctld


def follow(sweep: Sweep) -> SweepStates:
    """Show the states of all points until none is queued or running: a table on a terminal, else a line per change.

    Returns the states of points and follow-up tasks at the end.
    Raises: KeyboardInterrupt at Ctrl-C, which ends the display; the jobs continue.
    """
    last_line = ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            seen = read_states(sweep)
            line = status.summary(seen)
            if seen.slurm_error is not None:
                line += f"; the states may be old, because Slurm does not answer ({seen.slurm_error})"
            if console.is_terminal:
                live.update(status.table(sweep, seen, hidden=DONE), refresh=True)
            elif line != last_line:
                last_line = line
                console.print(f"{time.strftime('%H:%M:%S')}  {line}", soft_wrap=True)
            states = [state.state for state in [*seen.points.values(), *seen.follow_ups.values()]]
            if seen.slurm_error is None and not {QUEUED, RUNNING} & set(states):
                break
            time.sleep(SECONDS_BETWEEN_QUERIES)
    return status.show(sweep)
