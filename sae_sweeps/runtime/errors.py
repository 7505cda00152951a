"""The exceptions of this project, and how errors are described to the user."""

import errno


class ConfigError(ValueError):
    """A setting that cannot work. Its message is one line: `setting=value: problem. Fix: fix`."""

    def __init__(self, setting: str, value: object, problem: str, fix: str) -> None:
        self.setting, self.value, self.problem, self.fix = setting, value, problem, fix
        super().__init__(setting, value, problem, fix)

    def __str__(self) -> str:
        return f"{self.setting}={self.value}: {self.problem}. Fix: {self.fix}"


class OutOfReachError(ConfigError):
    """A model or data set that cannot be checked: the hub is unreachable or requires a login."""


class RefusedError(Exception):
    """A command that cannot run, with a line for each reason. Nothing was run."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


class TrainingError(RuntimeError):
    """Training that cannot continue, for example because the loss is not finite. The point fails with this message."""


class LockedError(TrainingError):
    """A point that another process is training."""


NO_POINTS = "the sweep has no points"


class NotRunError(RuntimeError):
    """A task on a sweep that has nothing to run on. The message names what is missing."""


class SlurmError(RuntimeError):
    """Slurm did not answer or refused a request. The message is Slurm's."""


EXPECTED_ERRORS = (ConfigError, TrainingError, SlurmError)  # logged without a traceback


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe_error(error: Exception) -> str:
    """Return one line that explains why a point failed."""
    if isinstance(error, EXPECTED_ERRORS):
        return str(error)
    text = " ".join(str(error).split())
    if is_disk_full(error):
        return (
            f"the disk is full ({text}). Free some space, then rerun the command; it resumes from the last checkpoint"
        )
    return f"{type(error).__name__}: {text}"


def is_disk_full(error: Exception) -> bool:
    """Return whether the disk or the quota is full. Some libraries keep only the message of the OSError."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
