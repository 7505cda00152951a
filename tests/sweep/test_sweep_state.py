"""The state of a submitted point: a case for each combination of its folder and the Slurm queue."""

import contextlib

import pytest
from filelock import FileLock

from sae_sweeps.sweep.point_state import State
from tests.sweep.conftest import job, submission, write_note

LOG = "slurm/s.1/7_0_0_log.out"
TRAINING = "training"  # state.json says running, and the lock is held
CASES = {  # name: state.json of point a, its job in squeue, its end state in sacct, and the expected state
    "pending": (None, job("7_0", "PENDING", 0, "Priority"), None, State("queued", "Priority", "7_0")),
    "started, no state.json yet": (None, job("7_0", "RUNNING"), None, State("running", "starting", "7_0")),
    "training": ((TRAINING, "7_0", 0), job("7_0", "RUNNING"), None, State("running", None, "7_0", 0, 12)),
    "suspended": ((TRAINING, "7_0", 0), job("7_0", "SUSPENDED"), None, State("running", None, "7_0", 0, 12)),
    "failed in this run, its pack continues": (
        ("failed", "7_0", 1, "it broke"),
        job("7_0", "RUNNING", 1),
        None,
        State("failed", "it broke", "7_0", 1, 12),
    ),
    "pruned in this run, its pack continues": (
        ("pruned", "7_0", 1, "place 2 of 2"),
        job("7_0", "RUNNING", 1),
        None,
        State("pruned", "place 2 of 2", "7_0", 1, 12),
    ),
    "pruned in an earlier job, and submitted again": (
        ("pruned", "5_0", 0, "place 2 of 2"),
        job("7_0", "PENDING", 0, "Resources"),
        None,
        State("queued", "Resources", "7_0", 0, 12),
    ),
    "failed in an earlier run, and requeued": (
        ("failed", "7_0", 0, "it broke"),
        job("7_0", "PENDING", 1, "BeginTime"),
        None,
        State("queued", "BeginTime", "7_0", 1, 12),
    ),
    "failed in an earlier job": (
        ("failed", "5_0", 0, "it broke"),
        job("7_0", "PENDING", 0, "Resources"),
        None,
        State("queued", "Resources", "7_0", 0, 12),
    ),
    "requeued three times": (
        ("interrupted", "7_0", 2, "SIGUSR1"),
        job("7_0", "PENDING", 3, "BeginTime"),
        None,
        State("queued", "BeginTime", "7_0", 3, 12),
    ),
    "training after being requeued": (
        (TRAINING, "7_0", 3),
        job("7_0", "RUNNING", 3),
        None,
        State("running", None, "7_0", 3, 12),
    ),
    "requeued and started, state.json of the earlier run": (
        ("interrupted", "7_0", 0),
        job("7_0", "RUNNING", 1),
        None,
        State("running", "starting", "7_0", 1, 12),
    ),
    "stopping": (
        ("interrupted", "7_0", 0),
        job("7_0", "RUNNING"),
        None,
        State("running", "stopping", "7_0", 0, 12),
    ),
    "completing": (
        ("interrupted", "7_0", 0),
        job("7_0", "COMPLETING"),
        None,
        State("running", "stopping", "7_0", 0, 12),
    ),
    "completing an earlier run": (
        ("interrupted", "7_0", 0),
        job("7_0", "COMPLETING", 1, "BeginTime"),
        None,
        State("queued", "BeginTime", "7_0", 1, 12),
    ),
    "cancelled before it started": (
        None,
        job("7_0", "CANCELLED"),
        None,
        State("interrupted", "job 7_0 was cancelled", "7_0"),
    ),
    "cancelled, in sacct": (
        ("interrupted", "7_0", 1, "SIGTERM"),
        None,
        "CANCELLED",
        State("interrupted", "job 7_0 was cancelled", "7_0", 1, 12),
    ),
    "ended, in squeue": (
        ("running", "7_0", 0),
        job("7_0", "TIMEOUT"),
        None,
        State("interrupted", f"job 7_0 ended before the point was done (TIMEOUT), see {LOG}", "7_0", 0, 12),
    ),
    "ended, in sacct": (
        ("running", "7_0", 0),
        None,
        "OUT_OF_MEMORY",
        State("interrupted", f"job 7_0 ended before the point was done (OUT_OF_MEMORY), see {LOG}", "7_0", 0, 12),
    ),
    "ended, unknown to sacct": (
        ("running", "7_0", 0),
        None,
        None,
        State("interrupted", f"job 7_0 ended before the point was done, see {LOG}", "7_0", 0, 12),
    ),
    "ended without a state.json": (
        None,
        None,
        None,
        State("interrupted", f"job 7_0 ended before the point was done, see {LOG}", "7_0"),
    ),
    "pruned and its job has ended": (
        ("pruned", "7_0", 0, "place 2 of 2"),
        None,
        "COMPLETED",
        State("pruned", "place 2 of 2", "7_0", 0, 12),
    ),
    "failed and its job is gone": (
        ("failed", "7_0", 0, "it broke"),
        None,
        "FAILED",
        State("failed", "it broke", "7_0", 0, 12),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_state_of_a_submitted_point(read_sweep, case):
    note, job, end_state, expected = CASES[case]
    lock: contextlib.AbstractContextManager = contextlib.nullcontext()
    if note is not None:
        state, owner, restarts, *reason = note
        if state == TRAINING:
            lock = FileLock(read_sweep.sweep.folder / "a" / ".lock")
        write_note(read_sweep.sweep, "a", "running" if state == TRAINING else state, owner, restarts, *reason, step=12)
    with lock:
        states = read_sweep(
            submission(), jobs=[] if job is None else [job], ended={"7_0": end_state} if end_state else {}
        )
    assert states.points["a"] == expected
    assert states.slurm_error is None
