"""Finds the settings that differ between configurations. A configuration is a nested dictionary here, as in JSON."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae_sweeps.config.identity import list_unnamed, select_result_settings
from sae_sweeps.config.saes import SAE_SCHEMAS

# a path of this machine inside a text: in quotes, or up to a blank or a mark; an address on the web is none
PATH = re.compile(
    r"""(?<=['"`])~?(?:/[^/'"`]+){2,}/?(?=['"`])|(?<![\w./~<>*)\]}-])~?(?:/[^\s/'"`,;()\[\]{}<>|]+){2,}/?"""
)


def shorten_path(value: Any) -> str:
    """Return the last two parts of a local path ("a/b" for "/x/a/b"), or any other value as text."""
    text = str(value)
    return "/".join(text.rstrip("/").split("/")[-2:]) if text.startswith(("/", "~", ".")) else text


def shorten_paths(value: Any) -> Any:
    """Return a JSON value without the folders of this machine: of each path in a text, the last two parts.

    For what is passed on to others (report, tables, cards, W&B). results.json and sweep.json have the whole paths.
    """
    if isinstance(value, Mapping):
        return {key: shorten_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shorten_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~", ".")) and ": " not in value:
        return shorten_path(value)
    return PATH.sub(_shorten_match, value)


def _shorten_match(found: re.Match[str]) -> str:
    path = found[0].rstrip(":.")  # marks of the sentence around it
    return shorten_path(path) + found[0][len(path) :]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to full names: {"training": {"lr": 1}} becomes {"training.lr": 1}.

    prefix: start of every full name, for example "training."
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return flat


def select_text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the held-out text and of the language model's dtype, as full name -> value."""
    dataset = {name: value for name, value in config["dataset"].items() if name != "retry_seconds"}
    return flatten({"dataset": dataset, "evaluation": config["evaluation"], "model.dtype": config["model"]["dtype"]})


def find_differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of settings that do not have the same value in every dictionary (full name -> value).

    Only names in the first dictionary are compared; a missing name counts as null.
    """
    return [key for key in settings[0] if len({json.dumps(one.get(key)) for one in settings}) > 1]


def find_varying(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the full names of the result settings whose values differ between configurations.

    Result settings are those that a trained SAE depends on. Configurations without a setting do not count
    as different in that setting.
    """
    values: dict[str, set[str]] = {}
    for config in configs:
        for key, value in (flatten(select_result_settings(dict(config))) | list_unnamed(config)).items():
            values.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
    return [key for key, different in values.items() if len(different) > 1]


def find_swept(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the full names of the result settings that were given different values, in the order of the schema.

    Unlike `find_varying`, without what follows from other settings: a target L0 that is k, and an architecture's
    default.
    """
    given = [flatten(dict(config)) for config in configs]
    return [
        name
        for name in find_varying(configs)
        if len({json.dumps(one.get(name)) for one in given}) > 1 and not all(_is_default(name, one) for one in given)
    ]


def _is_default(name: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a setting of `sae` has its architecture's default, or does not exist. `settings`: flat."""
    group, _, setting = name.partition(".")
    if group != "sae" or setting == "architecture":
        return False
    default = vars(SAE_SCHEMAS[settings["sae.architecture"]]()).get(setting)
    return bool(settings.get(name) == default)


def title_settings(names: Sequence[str]) -> dict[str, str]:
    """Return a short title for each full name of a setting: its last part, unless two of the names share that."""
    parts = {name: name.removesuffix(".name").rpartition(".")[2] for name in names}
    return {name: part if list(parts.values()).count(part) == 1 else name for name, part in parts.items()}


def format_value(value: Any) -> str:
    """Return the value of a setting for a table: of a path the last two parts, and nothing for None."""
    if value is None:
        return ""
    return str(shorten_paths(value)) if isinstance(value, str) else json.dumps(shorten_paths(value))
