"""The states of follow-up tasks: from their jobs, and from the outcomes in sweep.json."""

import pytest

from sae_sweeps.sweep.point_state import State
from sae_sweeps.sweep.slurm_queue import Job
from tests.sweep.conftest import submission

REPORT = submission("s.9", "9", [[]], "report")
LOST = "job 9_0 ended before the task was done, see slurm/s.9/9_0_0_log.out"


def ran(state: str, reason: str | None, id: str | None = "9_0") -> dict:
    return {"report": {"state": state, "reason": reason, "job": id}}


def waits(state: str, reason: str | None = None, restarts: int = 0) -> list[Job]:
    return [Job("9_0", "s.9", state, restarts, reason)]


@pytest.mark.parametrize(
    ("jobs", "followed", "expected"),
    [
        (waits("PENDING", "Dependency"), {}, State("queued", "Dependency", "9_0")),
        (waits("PENDING", "Dependency"), ran("done", None, "5_0"), State("queued", "Dependency", "9_0")),
        (waits("RUNNING", None, 1), {}, State("running", None, "9_0", 1)),
        ([], ran("done", None), State("done", None, "9_0")),
        ([], ran("not run", "not done: a"), State("not run", "not done: a", "9_0")),
        ([], ran("failed", "it broke"), State("failed", "it broke", "9_0")),
        (waits("COMPLETED"), ran("done", None), State("done", None, "9_0")),
        (waits("CANCELLED"), {}, State("interrupted", "job 9_0 was cancelled", "9_0")),
        (waits("NODE_FAIL"), {}, State("interrupted", LOST.replace(",", " (NODE_FAIL),"), "9_0")),
        ([], {}, State("interrupted", LOST, "9_0")),
        ([], ran("done", None, "5_0"), State("interrupted", LOST, "9_0")),
    ],
)
def test_the_state_of_a_follow_up(read_sweep, jobs, followed, expected):
    assert read_sweep(submission(), REPORT, jobs=jobs, followed=followed).follow_ups == {"report": expected}


def test_a_follow_up_counts_as_queued_while_slurm_does_not_answer(read_sweep):
    states = read_sweep(submission(), REPORT, error="squeue: no")
    assert states.follow_ups == {"report": State("queued", "Slurm does not answer", "9_0")}
    assert read_sweep(submission(), REPORT, error="squeue: no", followed=ran("done", None)).follow_ups == {
        "report": State("done", None, "9_0")
    }


def test_a_follow_up_that_ran_without_slurm_is_included(read_sweep):
    assert read_sweep(followed=ran("done", None, None)).follow_ups == {"report": State("done")}


def test_the_latest_submission_of_a_follow_up_counts(read_sweep):
    again = submission("s.10", "10", [[]], "report")
    states = read_sweep(
        REPORT, again, jobs=[Job("10_0", "s.10", "PENDING", 0, "Dependency")], followed=ran("done", None)
    )
    assert states.follow_ups == {"report": State("queued", "Dependency", "10_0")}
