"""Lists every setting that a person sets, with its group and meaning, for `--help` and docs/all-settings.md.

The meanings are the comments of the schemas and of conf/hydra/launcher/*.yaml, so each is written once.
"""

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sae_sweeps.config.presets import list_presets
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config
from sae_sweeps.runtime.places import PROJECT

# set by the choice of a group or sweeper, or by the program
CHOSEN = ("sae.architecture", "task.name", "given", "halving.enabled")
INNER = (*CHOSEN, "model.sparsity_coefficients", "model.cpu_sequences")  # the last two are set only in conf/model


class Setting(NamedTuple):
    """A setting of the command."""

    name: str  # full name, for example training.lr
    meaning: str  # the comment in the schema


class Group(NamedTuple):
    """Settings whose names begin alike; for `sae`, those of one architecture."""

    name: str  # start of the names, without the dot; "" for those at the top
    title: str  # what the settings are for
    settings: list[Setting]


def list_groups(architecture: str) -> Iterator[Group]:
    """Yield the groups of settings in the order of the schema, with the `sae` settings of one architecture."""
    yield _read_group("", Config)
    for field in dataclasses.fields(Config):
        schema = SAE_SCHEMAS[architecture] if field.name == "sae" else field.type
        if dataclasses.is_dataclass(schema) and isinstance(schema, type):
            group = _read_group(field.name, schema)
            if group.settings:
                yield group


def list_launcher_settings(launcher: str) -> list[tuple[Setting, str]]:
    """Return the settings of hydra/launcher=LAUNCHER, with their defaults as in the file."""
    text = (PROJECT / "conf" / "hydra" / "launcher" / f"{launcher}.yaml").read_text(encoding="utf-8")
    found = re.findall(r"^(\w+): (.*?) +# (.*)$", text, flags=re.MULTILINE)
    return [(Setting(f"hydra.launcher.{name}", meaning), default) for name, default, meaning in found]


def list_choices(group: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield (name, what it is, values as text) of each choice of a group, that is of each file in conf/<group>."""
    for name, file in list_presets(group).items():
        yield name, *_read_choice(file)


def _read_choice(file: Path) -> tuple[str, dict[str, str]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("# ") for line in lines if line.startswith("# ") and "@package" not in line]
    values = dict(re.findall(r"^(\w+): ([^#]*?) *(?:#.*)?$", "\n".join(lines), flags=re.MULTILINE))
    return " ".join(comments), values


def _read_group(name: str, schema: type) -> Group:
    """Return the settings of one schema without those of the schemas inside it and without INNER."""
    prefix = f"{name}." if name else ""
    meanings = _read_meanings(schema)
    settings = [
        Setting(prefix + field.name, meanings[field.name])
        for field in dataclasses.fields(schema)
        if prefix + field.name not in INNER and not dataclasses.is_dataclass(field.type)
    ]
    return Group(name, _to_text([schema.__doc__ or ""]), settings)


@functools.cache
def _read_meanings(schema: type) -> dict[str, str]:
    """Return field -> comment of a dataclass and its parents: the lines of comment above the field and on its line."""
    found = {} if schema.__base__ in (object, None) else dict(_read_meanings(schema.__base__))
    lines = textwrap.dedent(inspect.getsource(schema)).splitlines()
    (body,) = ast.parse("\n".join(lines)).body
    assert isinstance(body, ast.ClassDef), "the source of a class"
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment = _read_comment(lines, node)
            if comment or node.target.id not in found:
                found[node.target.id] = comment
    return found


def _read_comment(lines: list[str], node: ast.AnnAssign) -> str:
    """Return the comment above a statement and behind it, as one line of text."""
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip())
    behind = lines[(node.end_lineno or 0) - 1][node.end_col_offset :].strip()
    return _to_text(comment.removeprefix("#") for comment in [*above, behind])


def _to_text(lines: Iterable[str]) -> str:
    """Return lines as one, with None as the command line and YAML write it."""
    return re.sub(r"\bNone\b", "null", " ".join(" ".join(lines).split()))
