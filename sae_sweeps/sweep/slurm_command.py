"""Runs Slurm's commands. Whatever goes wrong with one becomes one line: the command, the cause, and a fix."""

import os
import re
import subprocess

from sae_sweeps.runtime.errors import SlurmError

SECONDS = 60  # timeout in seconds of one command; slurmctld can be slow under load
LETTERS = 300  # longest part of a command's own message in ours
TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
FIXES = {  # words in the message of a command -> what to do
    "Unable to contact slurm controller": "wait until the cluster answers sinfo, then run the command again",
    "Socket timed out": "wait until the cluster answers sinfo, then run the command again",
    "Invalid account": "hydra.launcher.account=NAME, one of those that sacctmgr show associations user=$USER lists",
    "invalid partition": "hydra.launcher.partition=NAME, one of those that sinfo lists",
    "Invalid qos": "hydra.launcher.qos=NAME, one of those that sacctmgr show qos lists",
    "Invalid feature": "hydra.launcher.constraint=NAME, one of those that sinfo -o %f lists",
    "Invalid generic resource": "hydra.launcher.gres=NAME, as sinfo -o %G lists them, or null for none",
    "node configuration is not available": "ask for less with hydra.launcher.gres, cpus or memory",
    "time limit": "hydra.launcher.time=MINUTES, at most what sinfo -o '%P %l' lists",
    "QOSMaxSubmitJobPerUserLimit": "wait for jobs to end, or raise hydra.launcher.max_points for fewer jobs",
    "unrecognized option": "correct hydra.launcher.sbatch; sbatch --help lists its options",
}

OTHER_FIX = "correct what Slurm's message names, or ask the cluster's administrators"


def call(*command: str) -> str:
    """Run a Slurm command and return the text on stdout. Bytes that are not UTF-8 are replaced.

    Raises: SlurmError if the command cannot be started, fails, or takes longer than SECONDS.
    """
    name = command[0]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, env=_environment())
    except FileNotFoundError:
        fix = "run this on a login node of the cluster, with Slurm's commands in PATH"
        raise SlurmError(f"there is no {name} on this machine", fix) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{name} did not answer within {SECONDS} s", "try again when the cluster answers") from None
    except (OSError, ValueError) as error:  # not executable, no memory, an argument with a null byte
        cause = getattr(error, "strerror", None) or str(error)
        raise SlurmError(f"{name} cannot be started ({cause})", f"try {name} --version in a shell") from None
    if done.returncode:
        message = _find_message(name, _decode(done.stderr), _decode(done.stdout))
        message = message or f"ended with exit code {done.returncode} and no message"
        fix = next((fix for words, fix in FIXES.items() if words.lower() in message.lower()), OTHER_FIX)
        raise SlurmError(f"{name}: {message}", fix)
    return _decode(done.stdout)


def shorten_message(text: str) -> str:
    """Return text of a command in one line of at most LETTERS characters, without colours and control characters."""
    words = TERMINAL_CODE.sub("", text).split()
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(words))
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 3]}..."


def _find_message(name: str, *outputs: str) -> str:
    """Return the reason for which a command failed: its own lines among banners, else its first line.

    outputs: the text on stderr, and that on stdout
    """
    lines = [line.strip() for output in outputs for line in output.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith((f"{name}:", "slurm_"))]
    errors = [line for line in own if "error" in line]
    chosen = errors or own or lines[:1]
    return shorten_message(" ".join(line.removeprefix(f"{name}: ") for line in chosen[:3]))


def _decode(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")


def _environment() -> dict[str, str]:
    """Return the environment without a user's default filters of squeue, which could hide jobs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
