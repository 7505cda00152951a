"""Rewrites command-line arguments that Hydra would misread."""

import re
from collections.abc import Sequence


def rewrite_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra needs them: `-m` first, and the rewrites of the functions below."""
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    arguments = [*dict.fromkeys(flags), *(argument for argument in arguments if argument not in flags)]
    rewrite = quote_sweep_names if "task=report" in arguments else rename_saved_sae
    arguments = [rewrite(argument) for argument in arguments]
    if any(re.match(r"sae=[^=]*,", argument) for argument in arguments):
        arguments = [make_choice(argument) for argument in arguments]
    return arguments


def rename_saved_sae(argument: str) -> str:
    """Turn `sae=FOLDER` into `saved=FOLDER`: in Hydra, `sae` is the group of architectures."""
    setting, _, value = argument.partition("=")
    return f"saved={value}" if setting == "sae" and ("/" in value or ":" in value) else argument


def make_choice(argument: str) -> str:
    """Turn `sae.target_l0=20` into a sweep over one value, for commands that sweep over architectures.

    Hydra checks a setting that is not swept against the default architecture, which may not have the setting.
    """
    setting, _, value = argument.partition("=")
    return f"{setting}=choice({value})" if setting.startswith("sae.") and value and "," not in value else argument


def quote_sweep_names(argument: str) -> str:
    """Quote the value of `name=a,b`, which means one report on several sweeps, not one command per name."""
    setting, _, value = argument.partition("=")
    if setting != "name" or "," not in value or value.startswith(("'", '"')):
        return argument
    return "name='{}'".format(value.replace("'", "\\'"))
