"""Whatever a Slurm command prints: lines of the right form are read, and the rest never gives a traceback."""

import subprocess
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.sweep import slurm_command, slurm_queue
from sae_sweeps.sweep.slurm_queue import Job
from tests.fake_slurm import line

BANNERS = ["", "CLUSTER: nautilus", "You have job 3 of 50 allowed", "x" * 400, "\x1b[31mmaintenance\x1b[0m", "12 jobs"]
WORDS = ["Submitted batch job ", "JobId=1 ", "MaxArraySize = ", "Restarts=", "JobState=", "12_0|", "12_0 ", "first.aa "]
OUTPUT = st.lists(st.binary(max_size=30) | st.sampled_from([word.encode() for word in WORDS])).map(b"".join)


@pytest.mark.parametrize("banner", BANNERS)
def test_a_banner_is_passed_over_everywhere(slurm, tmp_path, banner):
    slurm.says("squeue", f"{banner}\n\n" + line("12_0", "first.aa", "RUNNING", 0, "None") + f"{banner}\n")
    assert slurm_queue.find_jobs(["first.aa"]) == {"12_0": Job("12_0", "first.aa", "RUNNING", 0, None)}
    slurm.says("sacct", f"{banner}\n12_0|FAILED\n{banner}\n")
    assert slurm_queue.find_end_states(("12_0",)) == {"12_0": "FAILED"}
    slurm.says("scontrol", f"{banner}\nMaxArraySize            = 7\n{banner}\n")
    assert slurm_queue.max_array_size() == 7
    slurm.says("sbatch", f"{banner}\nSubmitted batch job 60060368 on cluster slaking\n{banner}\n")
    assert slurm_queue.submit(tmp_path / "job.sh") == "60060368"


def test_a_job_of_another_name_is_passed_over(slurm):
    slurm.says("squeue", line("12_0", "other.aa", "RUNNING", 0, "None"))
    assert slurm_queue.find_jobs(["first.aa"]) == {}


@pytest.mark.parametrize(
    "output", ["", "60060368\n", "60060368;slaking\n", "sbatch: Submitted batch job 3\n", "job 5\n"]
)
def test_no_id_is_guessed_from_other_words_of_sbatch(slurm, tmp_path, output):
    slurm.says("sbatch", output)
    with pytest.raises(SlurmError, match="no line 'Submitted batch job ID'"):
        slurm_queue.submit(tmp_path / "job.sh")


def test_a_cluster_without_arrays_is_one_line(slurm):
    slurm.says("scontrol", "MaxArraySize            = 0\n")
    with pytest.raises(SlurmError, match=r"allows no job arrays .* Fix: "):
        slurm_queue.max_array_size()


@pytest.mark.parametrize(
    ("shell", "cause"),
    [
        ("echo 'sbatch: error: Invalid account or account/partition combination' >&2; exit 1", "Invalid account"),
        (
            "echo 'Welcome to the cluster' >&2; echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1",
            "error: QOS",
        ),
        ("exit 3", "exit code 3 and no message"),
        (r"printf '\377\376 not UTF-8' >&2; exit 1", "not UTF-8"),
        ("echo 'the reason is on stdout'; exit 1", "the reason is on stdout"),
    ],
)
def test_a_failure_is_one_line_with_command_cause_and_fix(slurm, tmp_path, shell, cause):
    slurm.does("sbatch", shell)
    with pytest.raises(SlurmError) as caught:
        slurm_queue.submit(tmp_path / "job.sh")
    message = str(caught.value)
    assert message.startswith("sbatch: ")
    assert cause in message
    assert ". Fix: " in message
    assert message.isprintable()


def test_a_command_that_may_not_be_run_is_one_line(slurm, monkeypatch):
    slurm.says("squeue", "")
    monkeypatch.setenv("PATH", str(slurm.folder))  # a Slurm on this machine is not meant
    (slurm.folder / "squeue").write_text("no script")
    with pytest.raises(SlurmError, match="squeue cannot be started"):
        slurm_queue.find_jobs(["first.aa"])


@given(OUTPUT, OUTPUT, st.sampled_from([0, 1, 127]))
def test_any_output_is_read_or_refused_in_one_line(stdout, stderr, code):
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    slurm_queue.find_end_states.cache_clear()
    calls = (
        lambda: slurm_queue.find_jobs(["first.aa"]),
        lambda: slurm_queue.find_end_states(("12_0",)),
        lambda: slurm_queue.submit("job.sh"),
        lambda: slurm_queue._requeue("12_0"),
        lambda: slurm_queue.cancel("12_0"),
        slurm_queue.max_array_size,
    )
    with mock.patch.object(slurm_command.subprocess, "run", return_value=done):
        refusals = [refusal for call in calls if (refusal := find_refusal(call)) is not None]
    assert all(refusal.isprintable() for refusal in refusals)


def find_refusal(call) -> str | None:
    try:
        call()
    except SlurmError as error:
        return str(error)
    return None
