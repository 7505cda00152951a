"""Composes the configurations of a multirun, with Hydra once per choice of config groups instead of once per point."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException


class Sweeper(BasicSweeper):
    """A BasicSweeper that does not compose each job first and does not write multirun.yaml.

    Our launchers compose and check all points themselves, and a sweep that is refused must leave no files.
    """

    further: tuple[str, ...] = ()  # overrides that it adds to each point

    def sweep(self, arguments: list[str]) -> Any:
        """Split the command-line overrides into one list per point, and launch all points in one batch."""
        assert self.hydra_context is not None, "Hydra must call setup before sweep"
        assert self.launcher is not None, "Hydra must call setup before sweep"
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        words = [*self._parse_config(), *arguments, *self.further]
        (batch,) = self.split_arguments(parser.parse_overrides(words), None)
        return [self.launcher.launch(batch, initial_job_idx=0)]


class HalvingSweeper(Sweeper):
    """A sweeper whose points are compared in training, so that those that do worse than others end early."""

    further = ("halving.enabled=true",)


def compose(loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], first: int) -> list[DictConfig]:
    """Return one configuration per point, equal to what `loader.load_sweep_config` composes for the overrides.

    Points that choose the same files of conf/ differ only in values, which are set in a copy. That takes milliseconds;
    composing takes a seventh of a second.

    master: Hydra's configuration of the whole command
    batch: the overrides of each point
    first: Hydra's job number of the first point
    Raises: the exceptions of `load_sweep_config` if an override is wrong.
    """
    parser = OverridesParser.create(config_loader=loader)
    options = functools.cache(loader.get_group_options)  # each call of get_group_options copies all of conf/
    composed: dict[tuple[str, ...], DictConfig] = {}
    configs = []
    for number, words in enumerate(batch, start=first):
        overrides = parser.parse_overrides(list(words))
        chosen = [override for override in overrides if not _is_value(override, options)]
        key = tuple(override.input_line or "" for override in chosen)
        if key not in composed:
            composed[key] = loader.load_sweep_config(master, list(key))
        config = _with_values(composed[key], [override for override in overrides if override not in chosen])
        if config is None:  # compose with Hydra, which raises an error with a message
            config = loader.load_sweep_config(master, list(words))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
            task_words = [
                word for word, override in zip(words, overrides, strict=True) if not override.is_hydra_override()
            ]
            config.hydra.overrides.task = task_words
            config.hydra.job.override_dirname = ",".join(sorted(task_words))
        configs.append(config)
    return configs


def _is_value(override: Override, options: Callable[[str], list[str]]) -> bool:
    """Return whether an override is a plain `setting=value`, which chooses no file and adds or removes no setting.

    options: returns the files of a config group, or an empty list if there is no such group
    """
    is_change = override.type is not None and override.type.name == "CHANGE" and override.package is None
    return is_change and not options(override.key_or_group) and not override.is_hydra_override()


def _with_values(config: DictConfig, values: Sequence[Override]) -> DictConfig | None:
    """Return a copy of the configuration with these values set, or None if one of them cannot be set."""
    config = copy.deepcopy(config)
    try:
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        return None
    return config
