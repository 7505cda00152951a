"""Task `report`: results.csv and the table of a sweep, and what is not in them and why."""

from collections.abc import Mapping, Sequence

from sae_sweeps import states
from sae_sweeps.compare_run import compare_run
from sae_sweeps.comparison import points_of
from sae_sweeps.config import Config, TrackingConfig
from sae_sweeps.display import console, points_table
from sae_sweeps.slurm.watch import states_of
from sae_sweeps.states import DONE, FAILED, State
from sae_sweeps.status import tell
from sae_sweeps.sweep import Sweep


def run_sweep(sweep: Sweep, config: Config) -> list[str]:
    """Report on all points of a sweep, whatever became of them."""
    found = states_of(sweep).points
    failures = {name: state.reason or "" for name, state in found.items() if state.state == FAILED}
    show(sweep, config.tracking, list(found), failures)
    for name, state in found.items():
        if state.state not in (DONE, FAILED):
            tell(sweep, name, state)
    sweep.note_states(found)
    return []


def show(
    sweep: Sweep,
    tracking: TrackingConfig,
    names: Sequence[str],
    failures: Mapping[str, str],
    seconds: float | None = None,
) -> None:
    """What stands at the end of a command: the table of its points, the failures, and where the files are. W&B gets its
    comparison of the whole sweep."""
    path = sweep.write_results_csv()
    rows = [row for row in sweep.results() if row["point"] in names]
    if rows:
        console.print(points_table(sweep.name, rows))
    for name, reason in failures.items():
        tell(sweep, name, State(FAILED, reason))
    time = "" if seconds is None else f"{seconds:.0f} s in all  "
    seen = {name: states.of_point(sweep.folder / name) for name in sweep.read()["points"]}
    compare_run(sweep, tracking, points_of(sweep, seen))
    console.print(f"{time}files: {sweep.folder}/<point>/  table: {path}", markup=False, soft_wrap=True)
