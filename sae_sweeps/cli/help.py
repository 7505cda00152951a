"""Prints --help: examples, groups and tasks, and every setting with the value of this command and its meaning."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from sae_sweeps.config.commands import program, quote
from sae_sweeps.config.reference import Setting, list_choices, list_groups, list_launcher_settings
from sae_sweeps.config.tasks import TASKS
from sae_sweeps.runtime.places import PROJECT

HELP, MULTIRUN, CONFIG_DIR = ("-h", "--help"), ("-m", "--multirun"), ("-cd", "--config-dir")
COLUMN = 34  # where meanings begin
WIDEST = 110  # columns of the text, in a wide terminal
LAUNCHER = "hydra/launcher"

HEADER = """\
Train sparse autoencoders (SAEs) on the activations of a language model: one SAE, or a sweep of many.

  {program} sae=topk dict_size=6144 k=64                              one SAE
  {program} -m sae=batchtopk,topk,jumprelu dict_size=3072,6144        a sweep of six SAEs
  {program} -m task=plan k=16,32,64                                   what a sweep would take
  {program} model.name=FOLDER model.hook=blocks.12.hook_resid_pre dataset=text 'dataset.files=texts/*.txt'
  {program} -m experiment=gpt2_small                                  the papers' sweep

The same command again resumes: with the same name=NAME, finished points are skipped. With -m, settings take several
values with commas, and points that share activations are trained together.
"""

FOOTER = """\
  -m, --multirun                  sweep: run every combination of the values
  -cd, --config-dir FOLDER        add the groups in FOLDER: FOLDER/model/mine.yaml is model=mine
  -h, --help                      this text, with the values of the command that it is added to: sae=jumprelu --help
  --cfg job                       print the whole configuration
  --hydra-help                    the flags of Hydra
"""


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for this help."""
    return any(argument in HELP for argument in arguments)


def print_help(arguments: Sequence[str]) -> None:
    """Print the help with the values of the command. Raises: errors of Hydra for settings that it refuses."""
    words, folders = _split_arguments(arguments)
    paths = ",".join(map(quote, folders))
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"hydra.searchpath=[{paths}]", *_choose_values(words)], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # the files refer to it
    print(HEADER.format(program=program()))
    lines = ["Groups (group=choice):", *_describe_groups(folders), "", "Tasks (task=choice):", *_describe_tasks()]
    lines += ["", "Settings (setting=value), with the values of this command:", *_describe_settings(cfg)]
    print("\n".join([*lines, "", "Flags:", FOOTER.rstrip()]))


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the settings of a command line, and the folders of --config-dir."""
    left, words, folders = list(arguments), [], []
    while left:
        word = left.pop(0)
        flag, equals, folder = word.partition("=")
        if flag in CONFIG_DIR:
            folders.append(folder if equals else left.pop(0) if left else "")
        elif word not in (*HELP, *MULTIRUN):
            words.append(word)
    return words, folders


def _choose_values(words: list[str]) -> list[str]:
    """Return overrides with the first value of each setting that is swept."""
    return [
        f"{one.key_or_group}={next(one.sweep_string_iterator())}" if one.is_sweep_override() else str(one.input_line)
        for one in OverridesParser.create().parse_overrides(words)
    ]


def _describe_groups(folders: Sequence[str]) -> Iterator[str]:
    """Yield a line for each group of settings, with its choices in conf/ and in other folders."""
    choices: dict[str, set[str]] = {}
    for conf in (PROJECT / "conf", *map(Path, folders)):
        for file in sorted([*conf.glob("*/*.yaml"), *conf.glob(f"{LAUNCHER}/*.yaml")]):
            choices.setdefault(str(file.parent.relative_to(conf)), set()).add(file.stem)
    for group, names in choices.items():
        if group != "task":
            yield from _format_row(group, ", ".join(sorted(names)))


def _describe_tasks() -> Iterator[str]:
    meanings = {name: meaning for name, meaning, _ in list_choices("task")}
    for name in TASKS:
        yield from _format_row(name, meanings[name].rstrip("."))


def _describe_settings(cfg: DictConfig) -> Iterator[str]:
    """Yield lines with every setting, by group."""
    for group in list_groups(cfg.sae.architecture):
        if group.name:
            yield ""
            yield from textwrap.wrap(f"{group.name}: {group.title}", _width())
        for setting in group.settings:
            yield from _format_setting(cfg, setting)
    launcher = HydraConfig.get().runtime.choices[LAUNCHER]
    yield from ("", f"{LAUNCHER}={launcher}: where the points run")
    for setting, _ in list_launcher_settings("pack" if launcher == "pack" else "slurm"):
        yield from _format_setting(cfg, setting)


def _format_setting(cfg: DictConfig, setting: Setting) -> list[str]:
    return _format_row(f"{setting.name}={_format_value(OmegaConf.select(cfg, setting.name))}", setting.meaning)


def _format_value(value: object) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, (ListConfig, DictConfig)):
        value = OmegaConf.to_container(value, resolve=True)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_format_value, value))}]"
    return str(value).replace(f"{PROJECT}/", ".../")


def _format_row(name: str, meaning: str) -> list[str]:
    """Return lines with a name in the first column and its meaning in the second, which begins below a long name."""
    wrapped = textwrap.wrap(meaning, _width() - COLUMN) or [""]
    start = f"  {name}"
    first = [start] if len(start) > COLUMN - 2 else [f"{start:{COLUMN}}{wrapped.pop(0)}"]
    return [*first, *(" " * COLUMN + line for line in wrapped)]


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
