"""Which settings differ between configurations. Configurations are dictionaries here, as JSON files hold them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae_sweeps.config.identity import select_result_settings


def shorten_path(value: Any) -> str:
    """Return the last two parts of a local path, and any other value as text."""
    text = str(value)
    return "/".join(text.rstrip("/").split("/")[-2:]) if text.startswith(("/", "~", ".")) else text


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to full names: {"training": {"lr": 1}} becomes {"training.lr": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return flat


def select_text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return, flat, the settings of the evaluation text and of how the language model reads it."""
    return flatten(
        {"dataset": config["dataset"], "evaluation": config["evaluation"], "model.dtype": config["model"]["dtype"]}
    )


def find_differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names in the first of several flat settings that do not have the same value in all of them."""
    return [key for key in settings[0] if len({json.dumps(one.get(key)) for one in settings}) > 1]


def find_varying(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the result settings that do not have the same value in all configurations that have them."""
    values: dict[str, set[str]] = {}
    for config in configs:
        # select_result_settings leaves out the precision if it is float32
        precision = {"training.precision": config["training"]["precision"]}
        for key, value in (flatten(select_result_settings(dict(config))) | precision).items():
            values.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
    return [key for key, different in values.items() if len(different) > 1]
