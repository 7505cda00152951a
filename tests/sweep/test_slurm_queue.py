"""Parsing of Slurm's output, and how a job requeues itself."""

import pytest

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import slurm_command, slurm_queue
from sae_sweeps.sweep.slurm_queue import Job
from tests.fake_slurm import line


def test_jobs_are_read_from_columns_of_fixed_width(slurm):
    long = "a sweep with blanks ".replace(" ", "-") * 3 + ".0123abcd"
    slurm.says(
        "squeue",
        line("12_0", "first.aa", "RUNNING", 0, "None")
        + line("12_1", "first.aa", "PENDING", 2, "Dependency")
        + line("123456789_1000", long, "COMPLETING", 11, "(null) two words")
        + line("14", "first.bb", "OUT_OF_MEMORY", "", "OutOfMemory"),
    )
    assert slurm_queue.find_jobs(["first.bb", "first.aa", "first.aa", long]) == {
        "12_0": Job("12_0", "first.aa", "RUNNING", 0, None),
        "12_1": Job("12_1", "first.aa", "PENDING", 2, "Dependency"),
        "123456789_1000": Job("123456789_1000", long, "COMPLETING", 11, "(null) two words"),
        "14": Job("14", "first.bb", "OUT_OF_MEMORY", 0, "OutOfMemory"),
    }
    (call,) = slurm.calls("squeue")
    assert f"--name={long},first.aa,first.bb" in call.split()
    assert "--states=all" in call.split()  # includes those that have just ended
    assert "--array" in call.split()  # a line per task, also for tasks that wait


def test_an_empty_queue_has_no_jobs(slurm):
    slurm.says("squeue", "")
    assert slurm_queue.find_jobs(["first.aa"]) == {}


def test_squeue_is_not_called_without_names(slurm):
    assert slurm_queue.find_jobs([]) == {}
    assert slurm.calls("squeue") == []


@pytest.mark.parametrize(
    ("state", "is_live"),
    [("PENDING", True), ("RUNNING", True), ("COMPLETING", True), ("REQUEUE_HOLD", True), ("SUSPENDED", True)]
    + [(state, False) for state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL")],
)
def test_a_job_is_live_until_it_has_ended(state, is_live):
    assert Job("1_0", "x", state, 0, None).is_live == is_live


def test_an_error_of_squeue_is_in_the_exception(slurm):
    slurm.does("squeue", "printf 'slurm_load_jobs error: Unable to contact slurm controller\\nmore\\n' >&2; exit 1")
    with pytest.raises(
        SlurmError, match=r"^squeue: slurm_load_jobs error: Unable to contact slurm controller\. Fix: wait until"
    ):
        slurm_queue.find_jobs(["first.aa"])


def test_a_machine_without_slurm_raises_a_clear_error(slurm):
    slurm.misses("squeue")
    with pytest.raises(SlurmError, match="there is no squeue on this machine"):
        slurm_queue.find_jobs(["first.aa"])


def test_a_slurm_that_does_not_answer_times_out(slurm, monkeypatch):
    monkeypatch.setattr(slurm_command, "SECONDS", 0.2)
    slurm.does("squeue", "exec sleep 20")
    with pytest.raises(SlurmError, match="squeue did not answer within"):
        slurm_queue.find_jobs(["first.aa"])


def test_sacct_has_the_end_states_of_jobs_that_squeue_forgot(slurm):
    slurm.says("sacct", "12_0|TIMEOUT\n12_1|CANCELLED by 1000\n12_2|\n13_0|COMPLETED\n")
    assert slurm_queue.find_end_states(("12_0", "12_1", "12_2", "13_0")) == {
        "12_0": "TIMEOUT",
        "12_1": "CANCELLED",
        "13_0": "COMPLETED",
    }
    (call,) = slurm.calls("sacct")
    assert call.endswith("-j 12_0,12_1,12_2,13_0")


def test_end_states_are_empty_without_accounting(slurm):
    slurm.does("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert slurm_queue.find_end_states(("12_0",)) == {}
    slurm.misses("sacct")
    assert slurm_queue.find_end_states(("12_1",)) == {}


def test_a_job_is_cancelled_by_its_id(slurm):
    slurm.says("scancel", "")
    slurm_queue.cancel("12_3")
    assert slurm.calls("scancel") == ["12_3"]


SHOWN = "JobId=13 ArrayJobId=12 ArrayTaskId=3 JobName=first.aa JobState={} Reason={} Dependency=(null) Restarts={} x\n"


@pytest.mark.parametrize(
    ("state", "reason", "restarts", "ours", "why_not"),
    [
        ("RUNNING", "None", 0, None, None),
        ("RUNNING", "None", 2, "2", None),
        ("COMPLETING", "TimeLimit", 0, None, None),
        ("TIMEOUT", "TimeLimit", 1, "1", None),
        ("CANCELLED", "None", 0, None, "the job was cancelled"),
        ("COMPLETING", "None", 0, None, "the job was cancelled"),
        ("PENDING", "BeginTime", 1, None, "Slurm has requeued the job"),
        ("RUNNING", "None", 3, "2", "Slurm has requeued the job"),
    ],
)
def test_a_job_is_requeued_unless_it_was_cancelled_or_already_requeued(
    slurm, monkeypatch, state, reason, restarts, ours, why_not
):
    slurm.says("scontrol", SHOWN.format(state, reason, restarts))
    if ours is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", ours)
    assert slurm_queue.requeue("12_3") == why_not
    requeued = ["requeue 12_3"] if why_not is None else []
    assert slurm.calls("scontrol") == ["show job --oneliner 12_3", *requeued]


def test_a_refused_requeue_returns_the_reason(slurm, monkeypatch):
    monkeypatch.setattr(slurm_queue, "SECONDS_BETWEEN_ATTEMPTS", 0.0)
    slurm.says("scontrol", SHOWN.format("RUNNING", "None", 0))
    (slurm.folder / "scontrol").rename(slurm.folder / "shows")
    (slurm.folder / "scontrol.says").rename(slurm.folder / "shows.says")
    refuses = "echo 'slurm_requeue error: Requested operation is presently disabled' >&2; exit 1"
    slurm.does("scontrol", f'if [ "$1" = show ]; then exec "${{0%scontrol}}shows"; fi\n{refuses}')
    refusal = slurm_queue.requeue("12_3")
    assert refusal.startswith("scontrol: slurm_requeue error: Requested operation is presently disabled. Fix: ")


def test_requeueing_an_unknown_job_returns_the_reason(slurm, monkeypatch):
    monkeypatch.setattr(slurm_queue, "SECONDS_BETWEEN_ATTEMPTS", 0.0)
    slurm.does("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_queue.requeue("12_3").startswith("scontrol: slurm_load_jobs error: Invalid job id specified. Fix: ")


def test_the_largest_array_is_read_from_the_slurm_configuration(slurm):
    slurm.says("scontrol", "Configuration data as of now\nMaxArraySize            = 5\nMaxJobCount  = 10000\n")
    assert slurm_queue.max_array_size() == 5
    slurm.says("scontrol", "MaxJobCount = 7\n")
    assert slurm_queue.max_array_size() == 1001
