"""The settings of hydra/launcher=slurm, and what can be wrong with them."""

import re
from dataclasses import dataclass, field
from typing import Any

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.packs import check_limits

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
UNLIMITED = ("0", "UNLIMITED", "INFINITE")
SETTINGS = {"time": "time", "cpus-per-task": "cpus", "mem": "memory"}  # sbatch's name -> ours
OURS = {"array", "output", "error", "open-mode", "requeue", "no-requeue", "signal", "dependency", "job-name", "chdir"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """As conf/hydra/launcher/slurm.yaml explains them."""

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

    def find_problems(self) -> list[ConfigError]:
        found = check_limits(self.max_points, self.max_memory)

        def require(setting: str, holds: bool, problem: str, fix: str) -> None:
            if not holds:
                name = f"hydra.launcher.{setting}"
                found.append(ConfigError(name, getattr(self, setting), problem, fix))

        for setting in ("cpus", "parallel"):
            value = getattr(self, setting)
            holds = value is None or (type(value) is int and value >= 1)
            require(setting, holds, "must be a whole number from 1 on", f"hydra.launcher.{setting}=2, or leave it out")
        for setting in ("partition", "gres", "qos", "account", "constraint", "python"):
            value = getattr(self, setting)
            require(setting, value is None or isinstance(value, str), "must be text", f"hydra.launcher.{setting}=NAME")
        lines = isinstance(self.setup, list) and all(isinstance(line, str) for line in self.setup)
        require("setup", lines, "must be a list of shell lines", "'hydra.launcher.setup=[module load cuda]'")
        extras = isinstance(self.sbatch, dict)
        require("sbatch", extras, "must be parameters with values", "+hydra.launcher.sbatch.nice=100")
        require("wait", isinstance(self.wait, bool), "must be true or false", "hydra.launcher.wait=false")
        seconds = isinstance(self.warning, int) and self.warning >= 1
        require("warning", seconds, "must be a number of seconds from 1 on", "hydra.launcher.warning=120")
        minutes = minutes_of(self.time)
        fix = "hydra.launcher.time=4:00:00, or 1-12 for a day and a half"
        unlimited = self.time is None or str(self.time).upper() in UNLIMITED
        require("time", unlimited or minutes is not None, "is no time that Slurm knows", fix)
        if minutes is not None and seconds and not unlimited:
            enough = minutes * 60 >= self.warning + 60  # Slurm looks once a minute
            problem = f"leaves no time to work before the warning, {self.warning} s ahead of the end"
            require("time", enough, problem, "give more time, or a lower hydra.launcher.warning")
        for key in sorted(self.sbatch if extras else {}):
            name = key.replace("_", "-")
            if name in OURS or name in SETTINGS:
                problem = "is for the launcher to set"
                fix = f"hydra.launcher.{SETTINGS[name]}=" if name in SETTINGS else "leave it out"
                found.append(ConfigError(f"hydra.launcher.sbatch.{key}", self.sbatch[key], problem, fix))
        return found


def minutes_of(time: str | int | None) -> float | None:
    """What sbatch makes of --time: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s. None if nothing."""
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
