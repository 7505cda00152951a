"""The exceptions of this project, and messages for users about errors."""

from sae_sweeps.runtime.storage import explain_storage
from sae_sweeps.runtime.text import to_visible


class ConfigError(ValueError):
    """Raised for a setting that cannot work. The message is one line: `setting=value: problem. Fix: fix`."""

    def __init__(self, setting: str, value: object, problem: str, fix: str) -> None:
        self.setting, self.value, self.problem, self.fix = setting, value, problem, fix
        super().__init__(setting, value, problem, fix)

    def __str__(self) -> str:
        return to_visible(f"{self.setting}={self.value}: {self.problem}. Fix: {self.fix}")


class OutOfReachError(ConfigError):
    """Raised for a model or data set that cannot be checked because the hub is unreachable or requires a login."""


class RefusedError(Exception):
    """Raised for a command that cannot run, before it runs anything. `lines` has one message per reason."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


class TrainingError(RuntimeError):
    """Raised when a point cannot be trained further, for example because the loss is not finite."""


class BrokenTextError(TrainingError):
    """Raised when a text breaks off while it is read. The message says at which row of what, why, and what to do."""


class LockedError(TrainingError):
    """Raised for a point that another process is training."""


class FailedPointError(RuntimeError):
    """Raised where a sweeper asks for the objective of a point that has none. The message names the point and why."""


NO_POINTS = "the sweep has no points"


class NotRunError(RuntimeError):
    """Raised by a task on a sweep that lacks the input of the task, such as trained SAEs. The message names it."""


class SlurmError(RuntimeError):
    """Raised if Slurm does not answer or refuses a request. The message is one line: `cause. Fix: fix`."""

    def __init__(self, cause: str, fix: str) -> None:
        self.cause, self.fix = cause, fix
        super().__init__(cause, fix)

    def __str__(self) -> str:
        return f"{self.cause}. Fix: {self.fix}"


EXPECTED_ERRORS = (ConfigError, TrainingError, SlurmError)  # errors that are logged without a traceback


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of the error's type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe_error(error: Exception) -> str:
    """Return a one-line message for the error with which a point or task failed."""
    if isinstance(error, EXPECTED_ERRORS):
        return str(error)
    text = " ".join(str(error).split())
    if (explained := explain_storage(error)) is not None:
        return explained
    return f"{type(error).__name__}: {text}"
