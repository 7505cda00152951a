"""Writes the batch script of a job with submitit, and submits it with sbatch.

submitit's own command would unpickle a function and save its state inside a signal handler, in the middle of a step.
Our command runs node.py, which reads JSON and stops between two steps. submitit's own submission takes any number
after "job" in the output of sbatch for the job's id, also one in a banner.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.devices import THREAD_WAITS
from sae_sweeps.runtime.errors import SlurmError
from sae_sweeps.runtime.files import write_text
from sae_sweeps.sweep import slurm_queue

_waits = " ".join(f"{name}={value}" for name, value in THREAD_WAITS.items())
SET_THREAD_WAITS = f'[ -n "${{OMP_WAIT_POLICY:-}}" ] || export {_waits}'

# Without the trap, Slurm's signals would end the script. The trap sends USR1 to srun, which forwards it to the process;
# a TERM would make srun kill the process. A process that is killed without such a signal is started again.
KEEP_RUNNING = """\
stopping= step=
pass_on() { stopping=yes; [ -z "$step" ] || kill -s USR1 "$step" 2>/dev/null; }
trap pass_on USR1 TERM
keep_running() {
  while true; do
    "$@" & step=$!
    [ -z "$stopping" ] || pass_on
    while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done
    if [ "$code" -le 128 ] || [ -n "$stopping" ]; then exit "$code"; fi
    echo "killed by signal $((code - 128)); beginning again from the last saved states" >&2
    sleep 5
    if [ -n "$stopping" ]; then exit "$code"; fi
  done
}"""


def submit(folder: Path, code: Path, name: str, tasks: int, settings: Settings, after: Sequence[str] = ()) -> str:
    """Submit a job array and return the job's id.

    folder: the submission's folder, with submission.json; the logs are written there
    code: folder with the snapshot of the code that the job runs
    name: the job's name
    tasks: the number of array tasks
    after: ids of the jobs that must end first, whether they succeed or fail
    Raises: SlurmError if the script cannot be written, there is no sbatch, or Slurm refuses the job.
    """
    script = folder / "submission.sh"
    try:
        write_text(script, render(folder, code, name, tasks, settings, after))
        with _hide_outer_job():
            job = slurm_queue.submit(script)
        script.rename(folder / f"{job}_submission.sh")
    except OSError as error:
        problem = f"the batch script {script} cannot be written ({error.strerror})"
        raise SlurmError(problem, "make room in output_root, or choose another one") from None
    return job


@contextlib.contextmanager
def _hide_outer_job() -> Iterator[None]:
    """Remove the SLURM_* environment variables in this context, if this process itself runs in a Slurm job.

    Otherwise sbatch would use the settings of the current job for the new one.
    """
    is_job = "SLURM_JOB_ID" in os.environ
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if is_job and name.startswith("SLURM_") and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def render(folder: Path, code: Path, name: str, tasks: int, settings: Settings, after: Sequence[str] = ()) -> str:
    """Return the text of the batch script that `submit` submits for the same arguments.

    Raises: SlurmError if the installed submitit lacks what is used of it.
    """
    command = _build_command(folder, code, settings)
    try:  # private names of submitit: the only ones that this project uses
        executor = _build_executor(folder, name, tasks, settings, after)
        text: str = executor._make_submission_file_text(command, uid="")
    except (ImportError, AttributeError, TypeError, NotImplementedError) as error:
        problem = f"the installed submitit cannot write batch scripts in the way that this version needs ({error})"
        raise SlurmError(problem, "pip install 'submitit>=1.5.3,<1.6'") from error
    return text


def _build_command(folder: Path, code: Path, settings: Settings) -> str:
    """Return the shell command that runs node.py in the snapshot of the code and restarts it after a kill."""
    python = shlex.quote(sys.executable) if settings.python is None else settings.python
    # the working directory is first on Python's path, so the snapshot's code runs and not an installed one
    start = ["srun", f"--chdir={code}"]
    module = ["-u", "-m", "sae_sweeps.launchers.slurm.node", str(folder)]
    return f"keep_running {shlex.join(start)} {python} {shlex.join(module)}"


def _build_executor(folder: Path, name: str, tasks: int, settings: Settings, after: Sequence[str]) -> Any:
    """Return a submitit SlurmExecutor with the sbatch parameters of a job. For the arguments see `submit`."""
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            """Return 2, which means to submitit that Slurm is available: `submit` checks this with its own message."""
            return 2

    cpus = [  # neither torch nor srun reads --cpus-per-task
        'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"',
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    ]
    executor = Executor(folder)
    executor.update_parameters(
        job_name=name,
        partition=settings.partition,
        gres=settings.gres,
        cpus_per_task=settings.cpus,
        mem=settings.memory,
        time=settings.time,
        qos=settings.qos,
        account=settings.account,
        constraint=settings.constraint,
        dependency="afterany:" + ":".join(after) if after else None,
        array_parallelism=settings.parallel or tasks,
        wckey=None,
        stderr_to_stdout=True,
        use_srun=False,
        setup=[*settings.setup, *(cpus if settings.cpus else []), SET_THREAD_WAITS, KEEP_RUNNING],
        additional_parameters={
            "requeue": True,
            "signal": f"USR1@{settings.warning}",
            **{key.replace("_", "-"): value for key, value in settings.sbatch.items() if value not in (None, False)},
        },
    )
    executor.parameters["map_count"] = tasks
    return executor
