"""Defines and validates the settings of hydra/launcher=slurm."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.paths import find_hidden
from sae_sweeps.sweep.packs import check_limits

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?", re.ASCII)
UNLIMITED = ("0", "UNLIMITED", "INFINITE")
RENAMED = {"time": "time", "cpus-per-task": "cpus", "mem": "memory"}  # sbatch's option -> our setting
RESERVED = {
    "array",
    "output",
    "error",
    "open-mode",
    "requeue",
    "no-requeue",
    "signal",
    "dependency",
    "job-name",
    "chdir",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of hydra/launcher=slurm; conf/hydra/launcher/slurm.yaml explains each one."""

    max_points: int | None = None
    max_memory: float | None = None
    wait: bool = False
    partition: str | None = None
    gres: str | None = "gpu:1"
    cpus: int | None = 2
    memory: str | int | None = None
    time: str | int | None = None
    warning: int = 120
    parallel: int | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    python: str | None = None

    @property
    def asks_for_gpus(self) -> bool:
        """Return whether a job asks Slurm for a GPU, by `gres` or by another option of sbatch, such as gpus."""
        options = self.sbatch if isinstance(self.sbatch, dict) else {}
        gres = [self.gres, *(value for name, value in options.items() if name == "gres")]
        return any("gpu" in str(value) for value in gres) or any(str(name).startswith("gpus") for name in options)

    def find_problems(self) -> list[ConfigError]:
        """Return an error with a fix for every setting that cannot work; an empty list if all are valid."""
        found = check_limits(self.max_points, self.max_memory)

        def require(setting: str, is_valid: bool, problem: str, fix: str) -> None:
            if not is_valid:
                name = f"hydra.launcher.{setting}"
                found.append(ConfigError(name, getattr(self, setting), problem, fix))

        for setting in ("cpus", "parallel"):
            value = getattr(self, setting)
            is_valid = value is None or (type(value) is int and value >= 1)
            fix = f"hydra.launcher.{setting}=2, or leave the setting out"
            require(setting, is_valid, "must be a whole number from 1 on", fix)
        for setting in ("partition", "gres", "qos", "account", "constraint", "memory", "python"):
            value = getattr(self, setting)
            is_text = value is None or isinstance(value, str) or (setting == "memory" and type(value) is int)
            fix = f"hydra.launcher.{setting}=NAME; in a file, a value of digits needs quotes"
            require(setting, is_text, "must be text", fix)
            unreadable = find_unreadable(str(value), "" if setting == "python" else "\\") if is_text else None
            require(setting, unreadable is None, str(unreadable), fix)
            require(setting, value != "", "must not be empty", f"hydra.launcher.{setting}=null to leave it out")
        has_lines = isinstance(self.setup, list) and all(isinstance(line, str) for line in self.setup)
        fix = "'hydra.launcher.setup=[module load cuda]'"
        require("setup", has_lines, "must be a list of shell lines", fix)
        hidden = [find_unreadable(line.replace("\t", " "), "") for line in self.setup] if has_lines else []
        require("setup", not any(hidden), str(next(filter(None, hidden), None)), "give each line of shell by itself")
        has_options = isinstance(self.sbatch, dict)
        problem = "must be options of sbatch with values"
        require("sbatch", has_options, problem, "+hydra.launcher.sbatch.nice=100")
        require("wait", isinstance(self.wait, bool), "must be true or false", "hydra.launcher.wait=false")
        has_warning = isinstance(self.warning, int) and self.warning >= 1
        require("warning", has_warning, "must be a number of seconds from 1 on", "hydra.launcher.warning=120")
        minutes = parse_minutes(self.time)
        is_unlimited = self.time is None or str(self.time).upper() in UNLIMITED
        fix = "hydra.launcher.time=4:00:00, or 1-12 for one day and 12 hours"
        require("time", is_unlimited or minutes is not None, "must be a time that Slurm understands", fix)
        if minutes is not None and has_warning and not is_unlimited:
            leaves_time = minutes * 60 >= self.warning + 60  # Slurm checks time limits once a minute
            problem = f"must be at least a minute longer than hydra.launcher.warning={self.warning} s"
            require("time", leaves_time, problem, "raise hydra.launcher.time, or lower hydra.launcher.warning")
        return [*found, *self._find_option_problems()] if has_options else found

    def _find_option_problems(self) -> Iterator[ConfigError]:
        """Yield an error for every further option of sbatch that cannot be given here."""
        for key in sorted(self.sbatch, key=str):
            name, value = str(key).replace("_", "-"), self.sbatch[key]
            options = (*RENAMED, *sorted(RESERVED)) if name else ()
            known = next((option for option in options if option.startswith(name)), None)
            if known is not None:  # sbatch takes the beginning of an option for the option
                problem = "must not be given here, because the launcher sets this option"
                fix = f"use hydra.launcher.{RENAMED[known]}=..." if known in RENAMED else "leave the setting out"
                yield ConfigError(f"hydra.launcher.sbatch.{key}", value, problem, fix)
            elif not isinstance(key, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
                problem = "is no option of sbatch: letters, digits and dashes"
                yield ConfigError(f"hydra.launcher.sbatch.{key}", value, problem, "see sbatch --help")
            elif not isinstance(value, str | int | float | None):
                problem = "must be one text, number, true or false"
                yield ConfigError(f"hydra.launcher.sbatch.{key}", value, problem, "join several values by commas")
            elif (unreadable := find_unreadable(str(value), "\\")) is not None:
                fix = "give the option another value"
                yield ConfigError(f"hydra.launcher.sbatch.{key}", value, unreadable, fix)


def find_unreadable(text: str, special: str) -> str | None:
    """Return what sbatch would misread in a line of the batch script with this text; None if it reads it as it is.

    special: characters that mean something to sbatch there. It reads quotes, blanks, $ and # as they are.
    """
    for letter in text:
        if letter in special:
            return f"must not have a {letter}, which sbatch {'replaces in paths' if letter == '%' else 'removes'}"
    hidden = find_hidden(text)
    return None if hidden is None else f"must not have {hidden}, which a line of a batch script cannot hold"


def parse_minutes(time: str | int | None) -> float | None:
    """Return the minutes of a time limit in a format of sbatch --time; None for any other value.

    The formats are minutes, m:s, h:m:s, d-h, d-h:m and d-h:m:s.
    """
    match = TIME.fullmatch(str(time))
    if time is None or match is None:
        return None
    numbers = [int(part) for part in match.group("first", "second", "third") if part is not None]
    if match["days"] is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return int(match["days"]) * 1440 + hours * 60 + minutes + seconds / 60
    if len(numbers) == 3:
        return numbers[0] * 60 + numbers[1] + numbers[2] / 60
    return numbers[0] + (numbers[1] / 60 if len(numbers) == 2 else 0)
