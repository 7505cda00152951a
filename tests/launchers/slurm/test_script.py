"""The batch script: its whole text for one set of settings, and its shell function in a real shell."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sae_sweeps.launchers.slurm import script
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.devices import THREAD_WAITS, set_thread_waits
from sae_sweeps.runtime.errors import SlurmError

FOLDER, CODE = Path("/shared/out puts/first/slurm/first.0a1b"), Path("/shared/out puts/first/slurm/code-0123")
ALL = Settings(
    max_points=4,
    max_memory=20,
    partition="gpu",
    gres="gpu:a100:1",
    cpus=4,
    memory="32G",
    time="1-12:00:00",
    warning=300,
    parallel=2,
    qos="low",
    account="lab",
    constraint="a100|h100",
    setup=["module load cuda", "source ~/env.sh"],
    sbatch={"mail-user": "me@lab.org", "nice": 100, "exclusive": True, "mail_type": "END,FAIL"},
    python="apptainer exec --nv image.sif python3",
)


def test_the_script_of_a_full_set_of_settings_equals_the_golden_file():
    golden = Path(__file__).with_name("golden_submission.sh").read_bytes()
    assert script.render(FOLDER, CODE, "first.0a1b", 3, ALL, after=["11", "12"]).encode() == golden


def test_a_setting_that_is_not_set_has_no_line():
    lines = script.render(FOLDER, CODE, "first.0a1b", 3, Settings()).splitlines()
    parameters = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"array=0-2%3", "gres=gpu:1", "cpus-per-task=2", "requeue", "signal=USR1@120"} <= parameters
    assert {"job-name=first.0a1b", "open-mode=append", "nodes=1"} <= parameters
    assert f"output={shlex.quote(f'{FOLDER}/%A_%a_0_log.out')}" in parameters
    given = {parameter.partition("=")[0] for parameter in parameters}
    unset = {"partition", "mem", "time", "qos", "account", "constraint", "dependency", "error", "wckey", "exclusive"}
    assert not given & unset
    assert 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"' in lines


def test_without_cpus_the_script_sets_no_number_of_threads():
    text = script.render(FOLDER, CODE, "first.0a1b", 1, Settings(cpus=None, gres=None))
    for word in ("cpus-per-task", "gres", "OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK"):
        assert word not in text


def test_bash_can_parse_the_golden_script():
    golden = Path(__file__).with_name("golden_submission.sh")
    assert subprocess.run(["bash", "-n", golden], capture_output=True, text=True).stderr == ""


def run_in_script(command: str, pause: str = ":") -> list[str]:
    """The words that run a command as the batch script does, with another pause before it starts again."""
    return ["bash", "-c", f"{script.KEEP_RUNNING}\nsleep() {{ {pause}; }}\nkeep_running {command}"]


def command(folder: Path, shell: str) -> str:
    """A command that counts its starts in the file `starts` and then runs these lines."""
    file = folder / "command.sh"
    file.write_text(f"cd {shlex.quote(str(folder))}\necho x >> starts\n{shell}\n")
    return f"bash {shlex.quote(str(file))}"


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().split())


def test_a_command_that_is_killed_starts_again(tmp_path):
    dies_first = "[ -e second ] || { touch second; kill -KILL $$; }\nexit 7"
    done = subprocess.run(run_in_script(command(tmp_path, dies_first)), capture_output=True, text=True, timeout=20)
    assert (done.returncode, starts(tmp_path)) == (7, 2)
    assert done.stderr.splitlines()[-1] == "killed by signal 9; beginning again from the last saved states"


@pytest.mark.parametrize("code", [0, 1, 75, 128])
def test_the_exit_code_of_the_command_is_the_scripts(tmp_path, code):
    done = subprocess.run(run_in_script(command(tmp_path, f"exit {code}")), timeout=20)
    assert (done.returncode, starts(tmp_path)) == (code, 1)


def send(process: subprocess.Popen, number: signal.Signals, ready: Path) -> int:
    """Send the signal once the file `ready` exists. Returns the exit code."""
    end = time.monotonic() + 20
    while not ready.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(number)
    return process.wait(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("last", ["exit 75", "kill -KILL $$"])
def test_a_signal_reaches_the_command_and_prevents_another_start(tmp_path, number, last):
    traps = f"trap 'touch trapped; {last}' USR1\ntouch ready\nwhile true; do /bin/sleep 0.01; done"
    process = subprocess.Popen(run_in_script(command(tmp_path, traps)), stderr=subprocess.DEVNULL)
    code = send(process, number, tmp_path / "ready")
    assert (tmp_path / "trapped").exists()
    assert starts(tmp_path) == 1
    assert code == (75 if last == "exit 75" else 137)


def test_the_script_waits_for_a_command_that_saves_after_the_signal(tmp_path):
    finishes = "trap 'stop=yes' USR1\ntouch ready\nuntil [ -n \"$stop\" ]; do /bin/sleep 0.01; done\n/bin/sleep 0.3"
    process = subprocess.Popen(run_in_script(command(tmp_path, f"{finishes}\ntouch saved; exit 75")))
    assert send(process, signal.SIGUSR1, tmp_path / "ready") == 75
    assert (tmp_path / "saved").exists()


def test_a_signal_between_two_starts_ends_the_script(tmp_path):
    pause = f"touch {shlex.quote(str(tmp_path / 'pausing'))}; /bin/sleep 0.5"
    dies = "[ -e again ] && exit 3\ntouch again; kill -KILL $$"
    process = subprocess.Popen(run_in_script(command(tmp_path, dies), pause), stderr=subprocess.DEVNULL)
    send(process, signal.SIGUSR1, tmp_path / "pausing")
    assert starts(tmp_path) == 1


def test_the_command_and_the_script_set_how_threads_wait_unless_the_environment_does(monkeypatch):
    names = list(THREAD_WAITS)
    prints = " ".join(f'"${name}"' for name in names)
    for given, expected in ({}, ["PASSIVE", "1000"]), ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", ""]):
        for name in names:
            monkeypatch.setenv(name, "")  # so that the test's end restores it
            monkeypatch.delenv(name)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        text = f"{script.SET_THREAD_WAITS}\nprintf '%s,' {prints}"
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=20)
        assert done.stdout.split(",")[:2] == expected, done.stderr
        set_thread_waits()
        assert [os.environ.get(name, "") for name in names] == expected


def test_the_message_of_sbatch_is_in_the_error_and_not_printed(slurm, tmp_path, capfd):
    message = "sbatch: error: invalid partition specified: gpu\\nsbatch: error: Batch job submission failed"
    slurm.does("sbatch", f"printf 'noise\\n{message}\\n' >&2; exit 1")
    with pytest.raises(
        SlurmError,
        match=r"^sbatch: error: invalid partition specified: gpu error: Batch job .* Fix: hydra.launcher.partition",
    ):
        script.submit(tmp_path, CODE, "first.0a1b", 1, Settings())
    assert capfd.readouterr().err == ""


def test_an_answer_of_sbatch_without_a_job_is_an_error(slurm, tmp_path):
    slurm.says("sbatch", "all right\n")
    with pytest.raises(SlurmError, match="all right"):
        script.submit(tmp_path, CODE, "first.0a1b", 1, Settings())


def test_a_machine_without_sbatch_is_an_error(slurm, tmp_path):
    slurm.misses("sbatch")
    with pytest.raises(SlurmError, match="sbatch"):
        script.submit(tmp_path, CODE, "first.0a1b", 1, Settings())


def test_sbatch_does_not_get_the_variables_of_the_job_that_calls_it(slurm, tmp_path, monkeypatch):
    slurm.does("sbatch", 'env > "$0.env"; echo "Submitted batch job 7"')
    outer = {"SLURM_JOB_ID": "3", "SLURM_MEM_PER_NODE": "1000", "SLURM_CONF": "/some/slurm.conf"}
    for name, value in outer.items():
        monkeypatch.setenv(name, value)
    assert script.submit(tmp_path, CODE, "first.0a1b", 1, Settings()) == "7"
    lines = (slurm.folder / "sbatch.env").read_text().splitlines()
    assert [line for line in lines if line.startswith("SLURM_")] == ["SLURM_CONF=/some/slurm.conf"]
    assert {name: os.environ[name] for name in outer} == outer


def test_a_submitit_without_the_private_names_is_one_line(monkeypatch):
    from submitit.slurm.slurm import SlurmExecutor

    monkeypatch.delattr(SlurmExecutor, "_make_submission_file_text")
    with pytest.raises(SlurmError, match=r"the installed submitit cannot write .* Fix: pip install 'submitit"):
        script.render(FOLDER, CODE, "first.0a1b", 3, Settings())
