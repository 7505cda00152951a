"""Checks the options of an SAE that is made in Python by the rules of the settings on the command line."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import require_number


def require_options(architecture: str, dict_size: int, options: Mapping[str, Any]) -> None:
    """Check options of an architecture by name.

    Raises: ConfigError for the first option that is out of range, or not a number where the setting is one.
    """
    schema = SAE_SCHEMAS[architecture]
    texts = {each.name for each in fields(schema) if each.type is str}
    for name, value in options.items():
        if name in texts:
            continue
        for number in value if isinstance(value, list) else [value]:
            if number is not None:
                require_number(name, number)
    for found in schema(architecture=architecture, **options).find_problems(dict_size, 32):
        if found.setting in options:
            problem, fix = (text.replace("sae.", "").strip("'") for text in (found.problem, found.fix))
            raise ConfigError(found.setting, options[found.setting], problem, fix)
