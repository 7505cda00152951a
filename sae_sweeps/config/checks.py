"""Collects the errors of a configuration, setting by setting."""

import math

from sae_sweeps.config.schema import Config, get_setting
from sae_sweeps.runtime.errors import ConfigError


class Checks:
    """Collects the errors of one configuration in `problems`. Settings have full names, for example training.lr."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.problems: list[ConfigError] = []

    def require(self, setting: str, is_valid: bool, problem: str, fix: str) -> None:
        """Add an error for the setting, with this problem and fix, unless `is_valid`."""
        if not is_valid:
            self.problems.append(ConfigError(setting, get_setting(self.config, setting), problem, fix))

    def require_positive(self, *settings: str) -> None:
        """Add an error for each of the settings that is not a finite number above 0."""
        for setting in settings:
            is_positive = 0 < get_setting(self.config, setting) < math.inf  # false for nan as well
            self.require(setting, is_positive, "must be greater than 0", f"give {setting} a positive number")

    def require_at_least(self, least: int, *settings: str) -> None:
        """Add an error for each of the settings that is below `least`. None is valid."""
        for setting in settings:
            value = get_setting(self.config, setting)
            self.require(setting, value is None or value >= least, f"must be at least {least}", f"{setting}={least}")

    def require_one_of(self, setting: str, choices: tuple[str, ...]) -> None:
        """Add an error if the setting is none of the choices. The fix names the first choice."""
        is_known = get_setting(self.config, setting) in choices
        self.require(setting, is_known, f"must be one of {', '.join(choices)}", f"{setting}={choices[0]}")
