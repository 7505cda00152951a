"""Groups and pairs of trained SAEs that differ only in some settings, such as the dictionary size."""

import functools
import itertools
import json
import operator
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.config.schema import get_setting
from sae_sweeps.sweep.saved_saes import SavedSAE


def group_by_settings(saved: Sequence[SavedSAE], but: Sequence[str] = ("dict_size",)) -> list[list[SavedSAE]]:
    """Group the SAEs that differ only in the settings `but`, the smallest first in each group."""
    alike: dict[str, list[SavedSAE]] = {}
    for sae in saved:
        values = select_result_settings(asdict(sae.config))
        for setting in but:
            *groups, name = setting.split(".")
            functools.reduce(operator.getitem, groups, values).pop(name)
        alike.setdefault(json.dumps(values, sort_keys=True), []).append(sae)
    return [sorted(group, key=lambda sae: sae.config.dict_size) for group in alike.values()]


def pair_neighbours(saved: Sequence[SavedSAE]) -> list[tuple[SavedSAE, SavedSAE]]:
    """Return the (small, large) pairs of SAEs that differ only in dictionary size and are neighbours in size."""
    return [pair for alike in group_by_settings(saved) for pair in itertools.pairwise(alike)]


def pair_by_setting(group: Sequence[SavedSAE], settings: Sequence[str]) -> Iterator[tuple[SavedSAE, SavedSAE, str]]:
    """Yield the pairs of a group that differ in exactly one of some settings, and that setting.

    group: SAEs that differ in nothing but these settings
    """
    for left, right in itertools.combinations(group, 2):
        differing = [name for name in settings if get_setting(left.config, name) != get_setting(right.config, name)]
        if len(differing) == 1:
            yield left, right, differing[0]
