"""Successive halving: when the points of a sweep are compared, and which of them continue (arXiv:1810.05934).

A rung is a number of activations after which points are compared by the objective on held-out text. A bracket has the
points that may be compared: their settings `halving.within` are equal, and so are model, hook, text, tokens and chunks.
Of the points of a bracket that have reached a rung by then, the best fraction `halving.keep` continues. The others are
pruned, and each continues later if points that come after it turn out to be worse.

<point>/rungs.json    the bracket of a point, and its objective at each rung that it has reached
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.config.schema import get_setting
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.records import matches, read_record, write_record
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.objective import SETTING, list_objectives
from sae_sweeps.sweep.point import Point

RUNGS = "rungs.json"
FIRST = 1 / 8  # of training.tokens: the first rung, if halving.first is None
OBJECTIVE = "nmse_at_k"  # if `objective` is None: SAEs of all architectures have it at the same L0
ROUNDING = 1e-9  # of products such as 1/3 * 9
MOST_KEPT = 0.95  # with a larger fraction there would be hundreds of rungs
_is_count = lambda text: isinstance(text, str) and text.isdecimal()  # noqa: E731
SHAPE = {
    "bracket": str,
    "objective": lambda name: name in METRICS,
    "values": lambda values: matches(values, {str: (float, None)}) and all(map(_is_count, values)),
}


@dataclass(frozen=True)
class Rungs:
    """The content of a point's rungs.json. `values`: activations at a rung -> objective; None if it has no value"""

    bracket: str
    objective: str
    values: Mapping[int, float | None]

    def cost(self, value: float | None) -> float:
        """Return an objective as a number that is lower where it is better; infinity where it has no value."""
        if value is None or not math.isfinite(value):
            return math.inf
        return -value if METRICS[self.objective].best == "max" else value


def name_objective(config: Config) -> str:
    """Return the name of the metric by which a point is compared."""
    return (list_objectives(config) or [OBJECTIVE])[0]


def list_rungs(config: Config) -> list[int]:
    """Return the activations at which a point is compared, ascending: ends of chunks, before the end of training."""
    training, halving = config.training, config.halving
    chunk, total = training.batch_size * training.chunk_batches, training.steps * training.batch_size
    rungs: list[int] = []
    reached = float(halving.first or FIRST * total)
    while (rung := math.ceil(reached / chunk - ROUNDING) * chunk) < total:
        rungs += [rung] * (rung not in rungs)
        reached /= halving.keep
    return rungs


def find_bracket(config: Config) -> str:
    """Return a key that is equal for points that are compared with one another."""
    settings = {
        "stream": select_stream_settings(config),
        "within": {name: get_setting(config, name) for name in config.halving.within},
        "tokens": config.training.tokens,
        "chunk": config.training.batch_size * config.training.chunk_batches,
        "evaluation": config.evaluation.tokens,
        "objective": name_objective(config),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def read_rungs(folder: Path) -> Rungs | None:
    """Return the content of rungs.json in a point's folder; None if there is none, or it is damaged."""
    content = read_record(folder / RUNGS, SHAPE, is_sealed=True)
    if content is None:
        return None
    values = {int(tokens): value for tokens, value in content["values"].items()}
    return Rungs(content["bracket"], content["objective"], dict(sorted(values.items())))


def write_value(point: Point, rung: int, value: float | None) -> None:
    """Add the objective of a point at a rung to its rungs.json. Values of another bracket are dropped."""
    bracket, known = find_bracket(point.config), read_rungs(point.folder)
    earlier = known.values if known is not None and known.bracket == bracket else {}
    values = {str(tokens): number for tokens, number in {**earlier, rung: value}.items()}
    content = {"bracket": bracket, "objective": name_objective(point.config), "values": values}
    write_record(point.folder / RUNGS, content)


class Brackets:
    """The objectives that all points of a sweep have reported so far, by bracket and rung."""

    def __init__(self, folder: Path) -> None:
        """Read rungs.json of all points. `folder`: that of the sweep"""
        self._values: dict[tuple[str, int], dict[str, float]] = {}
        self._latest: dict[tuple[str, str], int] = {}  # (bracket, name of a point) -> the last rung that it reached
        for file in sorted(folder.glob(f"*/{RUNGS}")):
            if (rungs := read_rungs(file.parent)) is not None:
                for tokens, value in rungs.values.items():
                    self._values.setdefault((rungs.bracket, tokens), {})[file.parent.name] = rungs.cost(value)
                    self._latest[rungs.bracket, file.parent.name] = tokens

    def find_latest(self, point: Point) -> int | None:
        """Return the last rung that a point has reached; None if it has reached none of its bracket."""
        return self._latest.get((find_bracket(point.config), point.name))

    def rank(self, point: Point, rung: int) -> tuple[int, int]:
        """Return the place of a point at a rung that it has reached, from 1, and the number of points there."""
        values = self._values[find_bracket(point.config), rung]
        return 1 + sum(other < values[point.name] for other in values.values()), len(values)

    def keeps(self, point: Point, rung: int) -> bool:
        """Return whether a point is among the best fraction `halving.keep` at a rung, of which there is at least 1."""
        place, count = self.rank(point, rung)
        return place <= count_kept(count, point.config.halving.keep)

    def ends(self, point: Point) -> bool:
        """Return whether a point was pruned, and is still not among those that continue."""
        note = point_state.read_note(point.folder) if point.config.halving.enabled else None
        if note is None or note.state != point_state.PRUNED or point_state.is_done(point.folder):
            return False
        latest = self.find_latest(point)
        return latest is not None and not self.keeps(point, latest)


def count_kept(count: int, keep: float) -> int:
    """Return how many of `count` points at a rung continue."""
    return max(1, math.ceil(keep * count - ROUNDING))


def list_ended(points: Iterable[Point]) -> list[Point]:
    """Return the points that were pruned and do not continue, by the files of their sweeps."""
    chosen = [point for point in points if point.config.halving.enabled]
    brackets = {folder: Brackets(folder) for folder in {point.folder.parent for point in chosen}}
    return [point for point in chosen if brackets[point.folder.parent].ends(point)]


def list_revived(points: Iterable[Point]) -> list[Point]:
    """Return the points that were pruned and continue after all, by the files of their sweeps."""
    chosen = [point for point in points if point.config.halving.enabled]
    ended = {point.folder for point in list_ended(chosen)}
    return [
        point
        for point in chosen
        if point.folder not in ended and point_state.read_state(point.folder).state == point_state.PRUNED
    ]


def find_halving_problems(config: Config) -> list[ConfigError]:
    """Return an error for each setting with which the points of a sweep cannot be compared at rungs."""
    halving = config.halving
    if not halving.enabled:
        return []
    found = []
    if not 0 < halving.keep <= MOST_KEPT:
        problem = f"must be above 0 and at most {MOST_KEPT}"
        found.append(ConfigError("halving.keep", halving.keep, problem, "halving.keep=0.5"))
    if halving.first is not None and halving.first < 1:
        found.append(ConfigError("halving.first", halving.first, "must be at least 1", "halving.first=null"))
    unknown = [name for name in halving.within if not _is_setting(config, name)]
    if unknown:
        fix = "'halving.within=[dict_size,k,seed]'"
        found.append(ConfigError("halving.within", unknown[0], "is no setting of this point", fix))
    names = list_objectives(config)
    if len(names) > 1 or (names and names[0] in METRICS and METRICS[names[0]].best is None):
        problem = "halving compares points by one metric, of which low or high is better"
        found.append(ConfigError(SETTING, ",".join(names), problem, f"{SETTING}={OBJECTIVE}"))
    return found or _find_missing_rungs(config)


def _is_setting(config: Config, name: str) -> bool:
    try:
        get_setting(config, name)
    except AttributeError:
        return False
    return True


def _find_missing_rungs(config: Config) -> list[ConfigError]:
    """Return an error if training ends before the first comparison."""
    training = config.training
    if list_rungs(config):
        return []
    chunk = training.batch_size * training.chunk_batches
    problem = f"points are compared at ends of chunks, of {chunk:,} activations, and training ends before the first"
    fix = "lower halving.first or training.chunk_batches, raise training.tokens, or leave out hydra/sweeper=halving"
    return [ConfigError("training.tokens", training.tokens, problem, fix)]


def shorten(points: Sequence[Point]) -> list[Point]:
    """Return the points with the tokens that halving is expected to leave each; the largest SAEs get the most."""
    chosen = [point for point in points if point.config.halving.enabled]
    shortened = {point.folder: point for point in points}
    for bracket in group_brackets(chosen):
        ends: list[int] = []
        for rung, count in count_continuing(bracket):
            ends += [rung] * (len(bracket) - len(ends) - count)
        for point, tokens in zip(sorted(bracket, key=lambda point: point.config.dict_size), ends, strict=False):
            training = replace(point.config.training, tokens=tokens)
            shortened[point.folder] = replace(point, config=replace(point.config, training=training))
    return list(shortened.values())


def group_brackets(points: Iterable[Point]) -> list[list[Point]]:
    """Return the points of each bracket, in their order."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(find_bracket(point.config), []).append(point)
    return list(groups.values())


def count_continuing(bracket: Sequence[Point]) -> list[tuple[int, int]]:
    """Return each rung of a bracket, with the number of its points that continue after it if all are compared."""
    config, count, found = bracket[0].config, len(bracket), []
    for rung in list_rungs(config):
        count = count_kept(count, config.halving.keep)
        found.append((rung, count))
    return found


def describe_brackets(points: Sequence[Point]) -> list[str]:
    """Return a phrase for each kind of bracket: its points, and how many continue after each rung."""
    lines = []
    for bracket in group_brackets(point for point in points if point.config.halving.enabled):
        steps = count_continuing(bracket)
        counts = " → ".join(str(count) for count in (len(bracket), *(count for _, count in steps)))
        lines.append(f"{counts} points, compared at {', '.join(f'{rung:,}' for rung, _ in steps)} activations")
    return [f"{lines.count(line)} x {line}" if lines.count(line) > 1 else line for line in dict.fromkeys(lines)]
