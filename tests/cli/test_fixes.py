"""Every fix that a message of the code names works when it is typed: its settings exist, and its values compose."""

import ast
import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from sae_sweeps.cli.arguments import rewrite_arguments
from sae_sweeps.cli.hydra_errors import GROUPS, _known_settings
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.tasks import TASKS
from sae_sweeps.runtime.places import PROJECT

ERRORS = {
    "ConfigError": 3,
    "OutOfReachError": 3,
    "SlurmError": 1,
    "require": 3,
    "SettingProblem": 2,
}  # place of the fix
NOT_SETTINGS = {  # arguments of the library (api.py), variables of the shell, and options of sbatch and of Optuna
    *("texts", "files", "hook", "d_in", "chunk_size", "batch_size", "dict_size", "key", "dataset", "settings"),
    *("HF_HOME", "WANDB_BASE_URL", "user", "hydra.sweeper.direction"),
}
SETTING = re.compile(
    r"(?<![\w./$-])(\+?[a-z_]+(?:[./][a-z_0-9-]+)*)=('[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|[^\s,;:)]+)"
)
NAME = re.compile(r"(?<![\w./'$-])((?:%s)\.[a-z_0-9.]*[a-z_0-9])(?![\w/(])")
QUOTED = re.compile(r"'(\+?[a-z_./]+=[^']*)'")
TRICKY = set("[]{}*?$ ")  # what a shell may not pass on as it is


def render(node: ast.expr) -> str:
    """Return the text of a string in code, with ? for what is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join("{?}" if isinstance(part, ast.FormattedValue) else render(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return render(node.left) + render(node.right)
    if isinstance(node, ast.IfExp):
        return f"{render(node.body)} ; {render(node.orelse)}"
    if isinstance(node, ast.BoolOp):
        return " ; ".join(map(render, node.values))
    if isinstance(node, ast.Dict):
        return " ; ".join(map(render, node.values))
    return "{?}"


def find_fixes() -> dict[str, str]:
    """Return all fixes in the code: where they are -> text."""
    found = {}
    for file in sorted(PROJECT.glob("sae_sweeps/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            texts = []
            if isinstance(node, ast.Call):
                place = ERRORS.get(getattr(node.func, "id", getattr(node.func, "attr", "")))
                texts = [node.args[place]] if place is not None and len(node.args) > place else []
            elif isinstance(node, ast.Assign) and re.search(
                r"\b(?:\w+_)?fix(?:es)?\b", ast.unparse(node.targets[0]), re.I
            ):
                texts = node.value.elts[-1:] if isinstance(node.value, ast.Tuple) else [node.value]
            elif isinstance(node, ast.JoinedStr | ast.Constant) and "Fix: " in render(node):
                texts = [ast.Constant(render(node).partition("Fix: ")[2])]
            for text in map(render, texts):
                if "=" in text or "." in text:
                    found[f"{file.relative_to(PROJECT)}:{node.lineno}"] = text
    return found


FIXES = find_fixes()
KNOWN = {*_known_settings(), *GROUPS, "hydra/launcher", "hydra/sweeper"}


def is_known(setting: str) -> bool:
    name = setting.lstrip("+")
    return name in KNOWN or name.startswith("hydra.launcher.sbatch.") or name in NOT_SETTINGS or "?" in name


def list_typed() -> list[tuple[str, str]]:
    """Return the settings with values in all fixes: (where, word), as a shell passes them on."""
    found = []
    for where, text in FIXES.items():
        quoted = QUOTED.findall(text)
        found += [(where, word) for word in quoted]
        found += [(where, f"{name}={value}") for name, value in SETTING.findall(QUOTED.sub("", text))]
    return found


def test_the_fixes_are_found():
    assert len(FIXES) > 60
    assert {"training.betas", "sae", "task", "model.hook"} <= {word.partition("=")[0] for _, word in list_typed()}


def test_every_setting_in_a_fix_exists():
    groups = "|".join(sorted({name.partition(".")[0] for name in KNOWN if "." in name and "/" not in name}))
    named = re.compile(NAME.pattern % groups)
    wrong = [(where, word) for where, word in list_typed() if not is_known(word.partition("=")[0])]
    wrong += [
        (where, name)
        for where, text in FIXES.items()
        for name in named.findall(SETTING.sub("", QUOTED.sub("", text)))
        if not is_known(name) and not any(known.startswith(f"{name}.") for known in KNOWN)
    ]
    assert not wrong


def test_a_fix_that_a_shell_would_change_is_in_quotes():
    bare = [(where, word) for where, text in FIXES.items() for word in SETTING.findall(QUOTED.sub("", text))]
    bare = [(where, name, value) for where, (name, value) in bare if name not in NOT_SETTINGS]
    assert not [(where, name, value) for where, name, value in bare if set(value.replace("{?}", "")) & TRICKY]


def test_every_value_in_a_fix_composes():
    """Values with a placeholder, in capitals or with dots, are for the user to fill in."""
    words = {word for _, word in list_typed() if word.partition("=")[0].lstrip("+") not in NOT_SETTINGS}
    words = {word for word in words if "?" not in word and not re.search(r"=.*(?:[A-Z]{3,}|\.\.\.)", word)}
    assert len(words) > 30
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        for word in sorted(words):
            (typed,) = shlex.split(f"'{word}'") if "'" not in word else [word]
            needed = ["hydra/launcher=slurm"] * ("hydra.launcher" in typed)
            option = typed.partition("=")[0].removeprefix("sae.")
            needed += [
                f"sae={name}"
                for name, schema in SAE_SCHEMAS.items()
                if typed.startswith("sae.") and hasattr(schema(), option)
            ][:1]
            try:
                compose("config", overrides=rewrite_arguments([*needed, typed]), return_hydra_config=True)
            except HydraException as error:
                pytest.fail(f"{word}: {error}")


def test_every_task_in_a_fix_exists():
    named = {task for text in FIXES.values() for task in re.findall(r"\btask=([a-z_]+)", text)}
    assert named
    assert named <= set(TASKS)
