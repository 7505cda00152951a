"""The settings in which configurations differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae_sweeps.config.identity import result_settings


def shorten_path(value: Any) -> str:
    """The last two parts of a local path, which a person calls it by; other values as text."""
    text = str(value)
    return "/".join(text.rstrip("/").split("/")[-2:]) if text.startswith(("/", "~", ".")) else text


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: training.lr."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        found |= flatten(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return found


def text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration as a dictionary, what says on which text something was measured, and how the model ran."""
    return flatten(
        {"dataset": config["dataset"], "evaluation": config["evaluation"], "model.dtype": config["model"]["dtype"]}
    )


def find_differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of flat settings, those of the first that are not the same in all."""
    return [key for key in settings[0] if len({json.dumps(one.get(key)) for one in settings}) > 1]


def find_varying(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of configurations as dictionaries, the settings that decide a result and are not the same in all that have
    them."""
    said: dict[str, set[str]] = {}
    for config in configs:
        precision = {"training.precision": config["training"]["precision"]}  # `deciding` leaves out float32
        for key, value in (flatten(result_settings(dict(config))) | precision).items():
            said.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
    return [key for key, values in said.items() if len(values) > 1]
