"""Writes docs/all-settings.md: every setting with its default and meaning, and every choice of a group.

    python docs/_site/settings_page.py

The meanings are the comments of the schemas (sae_sweeps/config/reference.py), the choices those of the files in conf/.
"""

from collections.abc import Iterator
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sae_sweeps.cli import app  # noqa: F401  registers schemas and resolvers
from sae_sweeps.config.differences import flatten
from sae_sweeps.config.reference import Group, Setting, list_choices, list_groups, list_launcher_settings
from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.runtime.places import PROJECT

PAGE = PROJECT / "docs" / "all-settings.md"
CHOSEN = (
    "task",
    "experiment",
    "model",
    "dataset",
    "sae",
    "training",
    "meta",
    "tracking",
)  # groups with several choices
HEAD = """\
# All settings

Every setting of the command, `setting=value`, with its default, and every choice of a group,
`group=choice`. [settings.md](settings.md) explains how values are written. This page is made from the
comments in `sae_sweeps/config/` and `conf/` (`make settings-page`), as `--help` is.
"""


def make_page() -> str:
    """Return the text of the page."""
    groups = list_groups("batchtopk")
    blocks = [HEAD, *(_describe_sae() if group.name == "sae" else _describe_group(group) for group in groups)]
    return "\n".join([*blocks, _describe_choices("task"), _describe_choices("experiment"), _describe_launcher()])


def _describe_group(group: Group) -> str:
    """Return the section of a group: its settings, with the defaults of a command, and its choices."""
    title = f"## `{group.name}`" if group.name else "## The command"
    values = _compose()
    rows = [(setting, values[setting.name]) for setting in group.settings]
    return "\n".join([title, "", group.title, "", *_table(rows), _describe_choices(group.name)])


def _describe_sae() -> str:
    """Return the section of `sae`, in which a setting names the architectures that have it."""
    meanings: dict[str, str] = {}
    defaults: dict[str, dict[str, Any]] = {}  # setting -> architecture -> default
    for architecture in ARCHITECTURES:
        (group,) = (group for group in list_groups(architecture) if group.name == "sae")
        values = _compose(f"sae={architecture}")
        for name, meaning in group.settings:
            meanings.setdefault(name, meaning)
            defaults.setdefault(name, {})[architecture] = values[name]
    rows = []
    for name, meaning in meanings.items():
        first = next(iter(defaults[name].values()))
        others = [f"; {value} for {owner}" for owner, value in defaults[name].items() if value != first]
        owners = "" if len(defaults[name]) == len(ARCHITECTURES) else f"{', '.join(defaults[name])}: "
        rows.append((Setting(name, f"{owners}{meaning}{''.join(others)}"), first))
    title = "The SAE: its architecture and what only some architectures have."
    return "\n".join(["## `sae`", "", title, "", *_table(rows), _describe_choices("sae")])


def _describe_launcher() -> str:
    """Return the section of the launchers: pack runs the points here, slurm submits them."""
    lines = ["## `hydra/launcher`", "", "Where the points run: `pack`, on this machine (default), or `slurm`.", ""]
    for launcher in ("pack", "slurm"):
        lines += [f"### `hydra/launcher={launcher}`", ""]
        lines += [*_table([(setting, yaml.safe_load(text)) for setting, text in list_launcher_settings(launcher)]), ""]
    return "\n".join(lines)


def _describe_choices(group: str) -> str:
    """Return the table of the choices of a group; nothing for a group with one choice."""
    if group not in CHOSEN:
        return ""
    rows = []
    for name, meaning, values in list_choices(group):
        hidden = ("architecture", "defaults") if group != "task" else ("name",)
        chosen = {key: value for key, value in values.items() if value and not value.startswith("${listed:")}
        shown = ", ".join(f"`{key}={value}`" for key, value in chosen.items() if key not in hidden)
        rows.append(f"| `{group}={name}` | {_cell(meaning)} | {shown} |")
    title = f"## `{group}`\n" if group in ("task", "experiment") else ""
    return "\n".join([title, "| choice | what it is | sets |", "| --- | --- | --- |", *rows, ""])


def _table(rows: list[tuple[Setting, Any]]) -> Iterator[str]:
    yield from ("| setting | default | meaning |", "| --- | --- | --- |")
    for setting, value in rows:
        yield f"| `{setting.name}` | {_value(value)} | {_cell(setting.meaning)} |"


def _value(value: Any) -> str:
    """Return a default as code, as the command line takes it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text.replace(str(PROJECT) + '/', '')}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _compose(*overrides: str) -> dict[str, Any]:
    """Return full name -> value of every setting of a command."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        values = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(values, dict), "the whole configuration"
    return flatten(values)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
