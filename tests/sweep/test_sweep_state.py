"""The state of a point from its folder and from Slurm together, a case for each way the two can stand."""

import contextlib

import pytest
from filelock import FileLock

from sae_sweeps.sweep.point_state import State
from tests.sweep.conftest import job, notes, submission

LOG = "slurm/s.1/7_0_0_log.out"
AT_WORK = "at work"  # noted as running, and the lock is held
CASES = {  # name: what is noted of a, its job, how it ended by the accounts, and the state to be seen
    "pending": (None, job("7_0", "PENDING", 0, "Priority"), None, State("queued", "Priority", "7_0")),
    "begun, nothing noted yet": (None, job("7_0", "RUNNING"), None, State("running", "starting", "7_0")),
    "at work": ((AT_WORK, "7_0", 0), job("7_0", "RUNNING"), None, State("running", None, "7_0", 0, 12)),
    "suspended": ((AT_WORK, "7_0", 0), job("7_0", "SUSPENDED"), None, State("running", None, "7_0", 0, 12)),
    "failed in this run, its pack goes on": (
        ("failed", "7_0", 1, "it broke"),
        job("7_0", "RUNNING", 1),
        None,
        State("failed", "it broke", "7_0", 1, 12),
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
    "at work after being requeued": (
        (AT_WORK, "7_0", 3),
        job("7_0", "RUNNING", 3),
        None,
        State("running", None, "7_0", 3, 12),
    ),
    "requeued and begun, nothing noted yet": (
        ("interrupted", "7_0", 0),
        job("7_0", "RUNNING", 1),
        None,
        State("running", "starting", "7_0", 1, 12),
    ),
    "told to stop": (
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
    "cancelled before it began": (
        None,
        job("7_0", "CANCELLED"),
        None,
        State("interrupted", "job 7_0 was cancelled", "7_0"),
    ),
    "cancelled, by the accounts": (
        ("interrupted", "7_0", 1, "SIGTERM"),
        None,
        "CANCELLED",
        State("interrupted", "job 7_0 was cancelled", "7_0", 1, 12),
    ),
    "ended in squeue": (
        ("running", "7_0", 0),
        job("7_0", "TIMEOUT"),
        None,
        State("interrupted", f"job 7_0 ended before the point was done (TIMEOUT), see {LOG}", "7_0", 0, 12),
    ),
    "ended, by the accounts": (
        ("running", "7_0", 0),
        None,
        "OUT_OF_MEMORY",
        State("interrupted", f"job 7_0 ended before the point was done (OUT_OF_MEMORY), see {LOG}", "7_0", 0, 12),
    ),
    "ended without accounts": (
        ("running", "7_0", 0),
        None,
        None,
        State("interrupted", f"job 7_0 ended before the point was done, see {LOG}", "7_0", 0, 12),
    ),
    "ended and nothing was noted": (
        None,
        None,
        None,
        State("interrupted", f"job 7_0 ended before the point was done, see {LOG}", "7_0"),
    ),
    "failed and its job is gone": (
        ("failed", "7_0", 0, "it broke"),
        None,
        "FAILED",
        State("failed", "it broke", "7_0", 0, 12),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_point_that_was_submitted(see, case):
    noted, present, ended, expected = CASES[case]
    held: contextlib.AbstractContextManager = contextlib.nullcontext()
    if noted is not None:
        state, owner, restarts, *reason = noted
        if state == AT_WORK:
            held = FileLock(see.sweep.folder / "a" / ".lock")
        notes(see.sweep, "a", "running" if state == AT_WORK else state, owner, restarts, *reason, step=12)
    with held:
        seen = see(submission(), jobs=[] if present is None else [present], ended={"7_0": ended} if ended else {})
    assert seen.points["a"] == expected
    assert seen.slurm_error is None
