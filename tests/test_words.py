"""The project is written in the field's words: no private ones in names, messages or docs, and verbs in docstrings."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_sweeps.runtime.places import PROJECT

# words that stood for something with a name of its own, and what to write for them
PRIVATE_WORDS = {
    r"told|tells?|hears?|heard": "is called with, receives, shows, prints, reports",
    r"said": "an argument or variable named after what it holds",
    r"plea": "signal, request to stop",
    r"anew": "again, from scratch",
    r"go(?:es|ne)? on(?: with)?": "continue, resume",
    r"in vain": "without progress",
    r"at work on": "working on, training",
    r"is to be|are to be|to be had": "must be, can be used",
    r"held (?:to|against)": "checked against, compared with",
}
PRIVATE_NAMES = r"^_?(?:of_|told$|said$|telling$|held_to|gone_on)|_(?:told|said)$"
TEXT = {".py", ".md", ".yaml", ".toml", ".js", ".html", ".css"}
NOT_OURS = ("benchmarks/results/", "embedded/model/", "embedded/text", "tests/test_words.py")

VERBS = set((PROJECT / "tests" / "verbs.txt").read_text().split())  # add the one that you need


def tracked() -> list[Path]:
    """Return the project's own text files."""
    listed = subprocess.run(["git", "-C", PROJECT, "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not in a work tree")
    names = [name for name in listed.stdout.splitlines() if not name.startswith(NOT_OURS)]
    return [PROJECT / name for name in names if Path(name).suffix in TEXT and (PROJECT / name).exists()]


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every name that the code gives: of functions, classes, parameters and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


PYTHON = [file for file in tracked() if file.suffix == ".py"]


@pytest.mark.parametrize("file", tracked(), ids=lambda file: str(file.relative_to(PROJECT)))
def test_no_private_words(file):
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        for words, instead in PRIVATE_WORDS.items():
            if match := re.search(rf"\b(?:{words})\b", line.replace("_", " "), flags=re.IGNORECASE):
                found.append(f"{file.relative_to(PROJECT)}:{number}: {match[0]!r} (write: {instead})")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", PYTHON, ids=lambda file: str(file.relative_to(PROJECT)))
def test_no_private_names(file):
    bad = [f"{file.name}:{line}: {name}" for line, name in names(ast.parse(file.read_text()))]
    assert not [name for name in bad if re.search(PRIVATE_NAMES, name.rpartition(" ")[2])]


@pytest.mark.parametrize(
    "file",
    [file for file in PYTHON if "sae_sweeps" in file.relative_to(PROJECT).parts],
    ids=lambda file: str(file.relative_to(PROJECT)),
)
def test_docstrings_of_functions_begin_with_a_verb(file):
    bad = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)) is not None:
            first = re.split(r"[\s,.:]", text, maxsplit=1)[0]
            if first.lower() not in VERBS:
                bad.append(f"{file.relative_to(PROJECT)}:{node.lineno}: {node.name}: {first!r} is no verb of the list")
    assert not bad, "\n".join(bad)


def test_the_checks_find_what_they_look_for():
    assert re.search(PRIVATE_NAMES, "of_point")
    assert re.search(PRIVATE_NAMES, "told")
    assert not re.search(PRIVATE_NAMES, "offset")
    assert len(PYTHON) > 100
