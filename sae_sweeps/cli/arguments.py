"""Rewrites command-line arguments that Hydra would misread."""

import re
from collections.abc import Sequence

from sae_sweeps.cli.quoting import quote_argument, split_values, unquote_values
from sae_sweeps.config.commands import quote


def rewrite_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command-line arguments in the form that Hydra needs: `-m` first, ambiguous values rewritten."""
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    arguments = [*dict.fromkeys(flags), *(argument for argument in arguments if argument not in flags)]
    rewrite = quote_sweep_names if "task=report" in arguments else rename_saved_sae
    arguments = [quote_argument(rewrite(argument), is_sweep=bool(flags)) for argument in arguments]
    if any(re.match(r"sae=[^=]*,", argument) for argument in arguments):
        arguments = [make_choice(argument) for argument in arguments]
    return arguments


def rename_saved_sae(argument: str) -> str:
    """Return `saved=FOLDER` for `sae=FOLDER`, and any other argument unchanged.

    A value with / or : is a folder. In Hydra, `sae` is the config group of the architectures.
    """
    setting, _, value = argument.partition("=")
    return f"saved={value}" if setting == "sae" and ("/" in value or ":" in value) else argument


def make_choice(argument: str) -> str:
    """Return `sae.NAME=choice(VALUE)` for `sae.NAME=VALUE`, and any other argument unchanged.

    For commands that sweep over architectures: Hydra checks a setting that is not swept against the schema of the
    default architecture, which may not have the setting. `choice` makes a sweep over one value.
    """
    setting, _, value = argument.partition("=")
    return f"{setting}=choice({value})" if setting.startswith("sae.") and value and "," not in value else argument


def quote_sweep_names(argument: str) -> str:
    """Return `name='a,b'` for `name=a,b`, and any other argument unchanged.

    With the quotes Hydra makes one report on several sweeps instead of running one command per name.
    """
    setting, _, value = argument.partition("=")
    if setting != "name" or len(split_values(value)) == 1:
        return argument
    return f"name={quote(','.join(unquote_values(value)))}"
