"""The states of the tasks that follow a sweep: as jobs, and as sweep.json says how they ended."""

import pytest

from sae_sweeps.sweep.point_state import State
from sae_sweeps.sweep.slurm_queue import Job
from tests.sweep.conftest import submission

REPORT = submission("s.9", "9", [[]], "report")
LOST = "job 9_0 ended before it was done, see slurm/s.9/9_0_0_log.out"


def ran(state: str, why: str | None, id: str | None = "9_0") -> dict:
    return {"report": {"state": state, "reason": why, "job": id}}


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
def test_a_task_that_follows(see, jobs, followed, expected):
    assert see(submission(), REPORT, jobs=jobs, followed=followed).follow_ups == {"report": expected}


def test_where_slurm_does_not_answer_a_task_may_still_wait(see):
    seen = see(submission(), REPORT, error="squeue: no")
    assert seen.follow_ups == {"report": State("queued", "Slurm does not answer", "9_0")}
    assert see(submission(), REPORT, error="squeue: no", followed=ran("done", None)).follow_ups == {
        "report": State("done", None, "9_0")
    }


def test_a_task_that_followed_without_slurm_is_told_too(see):
    assert see(followed=ran("done", None, None)).follow_ups == {"report": State("done")}


def test_of_two_submissions_of_a_task_the_latest_counts(see):
    again = submission("s.10", "10", [[]], "report")
    seen = see(REPORT, again, jobs=[Job("10_0", "s.10", "PENDING", 0, "Dependency")], followed=ran("done", None))
    assert seen.follow_ups == {"report": State("queued", "Dependency", "10_0")}
