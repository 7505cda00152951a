"""The batch script of a job, written and handed to sbatch by submitit.

Of submitit we take the script, its options and the submission. What it would run in the job is a pickled function, and
on a signal it saves in the middle of whatever is going on; what we run is a module that reads JSON (node.py) and stops
between two steps. So the script's command is our own.
"""

import contextlib
import io
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.errors import SlurmError

# Signals for the script would end it; srun passes USR1 on to the process, but would kill it at a TERM
KEEP_RUNNING = """\
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
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
    """Submit an array of `tasks` tasks, whose input and logs are in `folder`. Returns the job's id.

    `after`: jobs that must have ended, however they did, before this one may begin.
    Raises: SlurmError if Slurm refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if shutil.which("sbatch") is None:
        raise SlurmError("there is no sbatch on this machine")
    executor = _executor(folder, name, tasks, settings, after)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _outside_of_jobs():  # submitit prints what it then raises
            return executor._submit_command(_command(folder, code, settings)).job_id
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        lines = str(error).splitlines()
        words = " ".join([line for line in lines if line.startswith("sbatch:")] or lines)
        raise SlurmError(words or "sbatch failed without a word") from None


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Within a job, sbatch would take that job's settings for those of the new one."""
    inside = "SLURM_JOB_ID" in os.environ
    its = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if inside and name.startswith("SLURM_") and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(its)


def text(folder: Path, code: Path, name: str, tasks: int, settings: Settings, after: Sequence[str] = ()) -> str:
    """The script that `submit` submits."""
    executor = _executor(folder, name, tasks, settings, after)
    return executor._make_submission_file_text(_command(folder, code, settings), uid="")


def _command(folder: Path, code: Path, settings: Settings) -> str:
    python = shlex.quote(sys.executable) if settings.python is None else settings.python
    # --chdir comes first on Python's path: the code is that of the snapshot, whatever is installed
    start = ["srun", f"--chdir={code}"]
    module = ["-u", "-m", "sae_sweeps.launchers.slurm.node", str(folder)]
    return f"keep_running {shlex.join(start)} {python} {shlex.join(module)}"


def _executor(folder: Path, name: str, tasks: int, settings: Settings, after: Sequence[str]) -> Any:
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:  # it has looked for srun; we say ourselves what is missing
            return 2

    cpus = [  # srun and torch do not look for themselves
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
        setup=[*settings.setup, *(cpus if settings.cpus else []), KEEP_RUNNING],
        additional_parameters={
            "requeue": True,
            "signal": f"USR1@{settings.warning}",
            **{key.replace("_", "-"): value for key, value in settings.sbatch.items() if value not in (None, False)},
        },
    )
    executor.parameters["map_count"] = tasks
    return executor
