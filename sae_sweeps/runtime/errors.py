"""The ways a run can end early: settings that must change, and computations that broke down."""

import errno


class ConfigError(ValueError):
    """A setting that cannot work. Its text is one line: the setting, its value, what is wrong, the fix."""

    def __init__(self, setting: str, value: object, problem: str, fix: str) -> None:
        self.setting, self.value, self.problem, self.fix = setting, value, problem, fix
        super().__init__(setting, value, problem, fix)

    def __str__(self) -> str:
        return f"{self.setting}={self.value}: {self.problem}. Fix: {self.fix}"


class OutOfReachError(ConfigError):
    """A model or data set that may be there, but cannot be looked at from here: the hub is not reached, or wants a
    login."""


class RefusedError(Exception):
    """Points that cannot run, told in `lines`; nothing was run."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


class TrainingError(RuntimeError):
    """Training cannot go on (a loss that is not finite, say); the point is marked failed with this text."""


class LockedError(TrainingError):
    """Another process works on the point."""


NO_POINTS = "the sweep has no points"


class NotRunError(RuntimeError):
    """A task that follows a sweep has nothing that it could be run on; the text says what is missing."""


class SlurmError(RuntimeError):
    """Slurm does not answer, or refuses; the text is what it says."""


EXPECTED_ERRORS = (ConfigError, TrainingError, SlurmError)  # whose text says all there is to say


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe_error(error: Exception) -> str:
    """Why a point failed, in one line."""
    if isinstance(error, EXPECTED_ERRORS):
        return str(error)
    text = " ".join(str(error).split())
    if is_disk_full(error):
        return f"the disk is full ({text}); make room, and the same command goes on from the last saved state"
    return f"{type(error).__name__}: {text}"


def is_disk_full(error: Exception) -> bool:
    """Whether there was no room, or no quota; not every library passes on the number of the error."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
