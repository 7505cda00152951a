"""Quotes the values of text settings on the command line, so that Hydra reads them as they were typed.

Hydra's grammar would make a number of name=2026_11_26 or account=007, and refuses `=` and brackets. Commas still
separate the values of a sweep (-m), brackets and commas a list, and values in quotes stay as they are. Whole numbers
may be typed as 1e6, which the grammar reads as a float.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser

from sae_sweeps.config.commands import quote
from sae_sweeps.config.fields import list_settings
from sae_sweeps.launchers.slurm.settings import Settings

OPTIONS = "hydra.launcher.sbatch"  # options of sbatch: any names, with values that are text, true, false or null
HYDRA_TEXT = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name")
QUOTED = re.compile(r"""\s*(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*(?=[,\])}]|$)""", re.DOTALL)
FUNCTION = re.compile(r"(?:choice|range|interval|glob|tag|sort|shuffle|str|int|float|bool)\s*\(.*\)", re.DOTALL)
EXPONENT = re.compile(r"(?<![\w.])\d[\d_]*(?:\.\d+)?[eE]\+?\d{1,2}(?![\w.])")
CHOICE = re.compile(r"choice\s*\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """The values that a text setting takes besides text.

    null: whether null means None; flags: whether true and false are no text; lists: whether it may be a list of texts;
    is_list: whether it must be one; options: whether it holds options of sbatch by name
    """

    null: bool = False
    flags: bool = False
    lists: bool = False
    is_list: bool = False
    options: bool = False


def quote_argument(argument: str, is_sweep: bool) -> str:
    """Return `setting=value` with quotes where the setting is text and needs them, and whole numbers in digits.

    Any other argument is unchanged.

    is_sweep: whether commas separate values of a sweep (-m); Hydra sweeps none of its own settings
    """
    name, equals, value = argument.partition("=")
    if name.lstrip("+") in _find_whole_numbers():
        return f"{name}{equals}{EXPONENT.sub(_spell_out, value)}"
    kind = find_kind(name.lstrip("+"))
    if not equals or kind is None:
        return argument
    if name.lstrip("+").startswith("hydra."):
        return f"{name}={_quote_value(value, kind)}"
    if FUNCTION.fullmatch(value) and (is_sweep or CHOICE.fullmatch(value)):
        choices = CHOICE.fullmatch(value)
        return f"{name}=choice({_quote_values(choices[1], kind)})" if choices else argument
    return f"{name}={_quote_values(value, kind)}"


def split_values(text: str) -> list[str]:
    """Return the parts of text between commas. Commas in quotes or in pairs of brackets do not count."""
    letters = _find_letters(text)
    is_balanced = _is_balanced(letters)
    cuts = [at for at, letter, depth in letters if letter == "," and (depth == 0 or not is_balanced)]
    return [text[start:end] for start, end in zip([0, *(at + 1 for at in cuts)], [*cuts, len(text)], strict=True)]


def unquote_values(text: str) -> list[str]:
    """Return the parts of text between commas as Hydra reads them: without blanks around them, and without quotes."""
    parts = [part.strip() for part in split_values(text)]
    parser = OverridesParser.create()
    return [str(parser.parse_override(f"key={_quote_value(part, Kind())}").value()) for part in parts]


def _find_letters(text: str) -> list[tuple[int, str, int]]:
    """Return (index, letter, number of open brackets behind it) of each letter outside quotes.

    A quote opens at the beginning of a value only: the apostrophe in it's is a letter.
    """
    letters, depth, at, begins = [], 0, 0, True
    while at < len(text):
        if begins and (quoted := QUOTED.match(text, at)):
            at, begins = quoted.end(), False
            continue
        letter = text[at]
        depth += (letter in "[({") - (letter in "])}")
        letters.append((at, letter, depth))
        begins = letter in ",[({:" or (begins and letter.isspace())
        at += 1
    return letters


def _is_balanced(letters: list[tuple[int, str, int]]) -> bool:
    """Return whether every closing bracket has an opening one before it, and every opening one is closed."""
    depths = [depth for _, _, depth in letters]
    return min(depths, default=0) >= 0 and depths[-1:] in ([], [0])


def _spell_out(number: re.Match[str]) -> str:
    """Return the digits of a whole number with an exponent: 1000000 for 1e6. Any other number is unchanged."""
    value = Decimal(number[0].replace("_", ""))
    return str(int(value)) if value == int(value) else number[0]


@cache
def list_types() -> dict[str, Any]:
    """Return the types of all settings, by full name, those of results first."""
    return dict([*list_settings(), *list_settings(Settings, "hydra.launcher.")])


@cache
def _find_whole_numbers() -> set[str]:
    """Return the full names of the settings that are whole numbers, or may be None instead."""
    return {name for name, annotation in list_types().items() if annotation in (int, int | None)}


@cache
def _find_kinds() -> dict[str, Kind]:
    """Return the kinds of all settings that are text, by full name."""
    found = {name: _classify(annotation) for name, annotation in list_types().items()}
    found |= {name: Kind() for name in HYDRA_TEXT} | {OPTIONS: Kind(options=True)}
    return {name: kind for name, kind in found.items() if kind is not None}


def find_kind(name: str) -> Kind | None:
    """Return the kind of a setting; None if it is no text."""
    return Kind(null=True, flags=True) if name.startswith(f"{OPTIONS}.") else _find_kinds().get(name)


def _classify(annotation: Any) -> Kind | None:
    """Return the kind of a setting with this type in its schema; None if the type is no text."""
    if annotation is Any:
        return Kind(null=True, lists=True)
    if get_origin(annotation) is list and get_args(annotation) == (str,):
        return Kind(lists=True, is_list=True)
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return Kind(null=type(None) in types) if str in types else None


def _quote_values(text: str, kind: Kind) -> str:
    """Return the values of a sweep, or a single value, quoted each for itself."""
    values = split_values(text)
    return (
        _quote_value(text, kind) if len(values) == 1 else ",".join(_quote_value(part.strip(), kind) for part in values)
    )


def _quote_value(text: str, kind: Kind) -> str:
    """Return one value as Hydra has to see it."""
    if kind.lists and (inner := _strip_brackets(text, "[]")) is not None:
        return f"[{','.join(_quote_value(part.strip(), Kind()) for part in split_values(inner))}]"
    if kind.options and (inner := _strip_brackets(text, "{}")) is not None:
        return f"{{{','.join(map(_quote_option, split_values(inner)))}}}"
    is_word = text.lower() in ["null"] * kind.null + ["true", "false"] * kind.flags
    if QUOTED.fullmatch(text):
        return text.strip()  # Hydra's grammar knows no blanks but space and tab
    if not text or is_word or kind.is_list or kind.options:
        return text
    return quote(text)


def _quote_option(pair: str) -> str:
    """Return `option: value` with the value as Hydra has to see it."""
    option, colon, value = pair.partition(":")
    return f"{option}{colon}{_quote_value(value.strip(), Kind(null=True, flags=True))}"


def _strip_brackets(text: str, brackets: str) -> str | None:
    """Return the text between a pair of brackets; None if it is not in one pair from end to end."""
    text = text.strip()
    inner = text[1:-1]
    is_pair = len(text) > 1 and text[0] + text[-1] == brackets and _is_balanced(_find_letters(inner))
    return inner if is_pair else None
