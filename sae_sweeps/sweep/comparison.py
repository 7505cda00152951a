"""Comparison of points: groups that differ only in their seed, their labels, and which has the best value."""

import json
import math
import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sae_sweeps.activations.hooks import split_hook
from sae_sweeps.config import from_json
from sae_sweeps.config.differences import find_varying, flatten, shorten_path, shorten_paths
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.config.saes import architecture_title
from sae_sweeps.config.synthetic import SYNTHETIC, SyntheticConfig
from sae_sweeps.evaluation.metrics import Metric, is_worse_than_mean
from sae_sweeps.sweep.point_state import State, read_results
from sae_sweeps.sweep.result_files import find_changed
from sae_sweeps.sweep.sweep import Sweep


@dataclass(frozen=True)
class ComparedPoint:
    """A point of a sweep, done or not.

    results: the content of results.json; None if the point has no such file
    changed: files of its SAE that changed after results.json was written
    """

    sweep: Sweep
    name: str
    state: State
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None
    changed: Sequence[str] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """Return the metrics of the point that have a value, by name; empty if the point has no results."""
        found = {} if self.results is None else self.results["metrics"]
        return {name: value for name, value in found.items() if value is not None}

    @property
    def missing(self) -> list[str]:
        """Return the names of the metrics that have no value."""
        return (
            [] if self.results is None else [name for name, value in self.results["metrics"].items() if value is None]
        )


@dataclass(frozen=True)
class Group:
    """Points of a sweep that differ only in their seed.

    mean: metric name -> mean over the finished points; no entry if the metric has no value in one of them
    spread: metric name -> sample standard deviation over the finished points; None if there are fewer than two values
        or they are too large
    settings: those that the label names, with short names, such as "lr 0.01"; empty if it names none
    contest: what must be equal in groups for one of them to be the best: k, and model, hook and text
    """

    label: str
    points: list[ComparedPoint]
    mean: dict[str, float]
    spread: dict[str, float | None]
    settings: str = ""
    contest: Hashable = None


def collect_points(
    sweep: Sweep, states: Mapping[str, State], content: Mapping[str, Any] | None = None
) -> list[ComparedPoint]:
    """Return the points of a sweep that `states` contains, done or not, in the order of sweep.json.

    states: folder name of a point -> state
    content: the content of sweep.json; None to read the file
    """
    content = sweep.read() if content is None else content
    return [
        _read_point(sweep, name, states[name], known["config"])
        for name, known in content["points"].items()
        if name in states  # other commands may have added points after the states were read
    ]


def _read_point(sweep: Sweep, name: str, state: State, config: dict[str, Any]) -> ComparedPoint:
    folder = sweep.folder / name
    results = read_results(folder)
    changed = [] if results is None else find_changed(folder, results, quick=True)
    return ComparedPoint(sweep, name, state, asdict(from_json(config)), results, changed)


SEED, DATA_SEED = "seed", "dataset.seed"  # settings: of the initialisation, and of the order of the data


def group_by_seed(points: Sequence[ComparedPoint], seeds: Collection[str] = (SEED,)) -> list[Group]:
    """Group the points that differ only in their seed, in the order of each group's first point.

    seeds: settings in which points of a group may differ

    The label of a group names architecture, dictionary size and k, and the sweep if there are several. If groups agree
    in all of these, their labels also name the settings in which they differ.
    """
    several = len({point.sweep.folder for point in points}) > 1
    groups: dict[str, list[ComparedPoint]] = {}
    for point in points:
        known = flatten(select_result_settings(dict(point.config)))
        settings = {key: value for key, value in known.items() if key not in seeds}
        key = json.dumps([str(point.sweep.folder), settings], sort_keys=True)
        groups.setdefault(key, []).append(point)
    alike: dict[str, list[ComparedPoint]] = {}
    for members in groups.values():
        alike.setdefault(point_label(members[0], several), []).append(members[0])
    labelled = []
    for members in groups.values():
        label = point_label(members[0], several)
        varying = [key for key in find_varying([point.config for point in alike[label]]) if key not in seeds]
        labelled.append(_group(label, name_settings(members[0], varying), members))
    labels = [group.label for group in labelled]
    # labels show only the last part of a file path, so two may still be equal: add the hash in the point's name
    return [_add_hash(group) if labels.count(group.label) > 1 else group for group in labelled]


def _add_hash(group: Group) -> Group:
    name = f"({group.points[0].name[-8:]})"
    return replace(group, label=f"{group.label} {name}", settings=f"{group.settings} {name}".lstrip())


def _group(label: str, settings: Mapping[str, str], points: list[ComparedPoint]) -> Group:
    values: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.metrics.items():
            values.setdefault(name, []).append(value)
    for name in {name for point in points for name in point.missing}:
        values.pop(name, None)  # a mean over some of the seeds would not be that of the group
    return Group(
        label + "".join(f", {key} {value}" for key, value in settings.items()),
        points,
        {name: statistics.fmean(numbers) for name, numbers in values.items()},
        {name: _spread(numbers) for name, numbers in values.items()},
        ", ".join(f"{name} {value}" for name, value in _shorten_names(settings).items()),
        find_contest(points[0]),
    )


def _shorten_names(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings under the last parts of their names, or under their full names if two would be equal."""
    short = {key.rpartition(".")[2]: value for key, value in settings.items()}
    return short if len(short) == len(settings) else dict(settings)


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None


def finite_or_inf(value: float | None) -> float:
    """Return the value if it is finite, else infinity, so that missing values and NaN sort last."""
    return value if value is not None and math.isfinite(value) else math.inf


def point_label(point: ComparedPoint, several: bool = False) -> str:
    """Return a label such as "BatchTopK 6144, k 32". `several`: put the name of the point's sweep before the label."""
    label = display_name(point.config["sae"]["architecture"], point.config["dict_size"], point.config["k"])
    return f"{point.sweep.name}: {label}" if several else label


def display_name(architecture: str, dict_size: int, k: int | None) -> str:
    """Return a name such as "BatchTopK 6144, k 32". `k`: None if unknown, as for some SAEs of other libraries."""
    name = f"{architecture_title(architecture)} {dict_size}"
    return name if k is None else f"{name}, k {k}"


def name_settings(point: ComparedPoint, keys: Sequence[str]) -> dict[str, str]:
    """Return the settings `keys` of a point as full name -> text. Settings that are None are left out.

    Of a file path only the last part is shown, and a hook as its layer: "layer" -> "3 resid_pre".
    """
    settings = flatten(select_result_settings(dict(point.config)))
    named = {}
    for key in keys:
        if key == "model.hook" and (parts := split_hook(settings[key])):
            named["layer"] = f"{parts[0]} {parts[1].removeprefix('hook_')}"
        elif settings.get(key) is not None:
            named[key] = str(shorten_paths(settings[key]))
    return named


def find_contest(point: ComparedPoint) -> tuple[int, str]:
    """Return what must be equal in points for one of them to be the best: k, and model, hook and text as a phrase."""
    return point.config["k"], describe_data(point)


def describe_data(point: ComparedPoint) -> str:
    """Return the model, hook and text of a point as one phrase: "MODEL, HOOK, on TEXT".

    For synthetic activations they are the numbers of what is planted, how, and the seed of the draw.
    """
    model, dataset = point.config["model"], point.config["dataset"]
    if dataset.get("format") == SYNTHETIC:
        return _describe_planted(point.config["synthetic"])
    files = dataset["files"]
    texts = [dataset["name"]] if dataset["name"] else [files] if isinstance(files, str) else files or []
    return f"{shorten_path(model['name'])}, {model['hook']}, on {', '.join(map(shorten_path, texts))}"


def _describe_planted(settings: Mapping[str, Any]) -> str:
    """Return a phrase of three parts on a planted dictionary: its size, L0, and every setting that is no default."""
    size = f"{settings['features']} planted features in {settings['dim']} dimensions"
    usual = vars(SyntheticConfig())
    named = ("features", "dim", "active")
    others = [f"{name} {value}" for name, value in settings.items() if name not in named and value != usual.get(name)]
    return f"{size}, {settings['active']:g} active on average, on {' and '.join(others) or 'default settings'}"


def distinguish_data(described: Sequence[str]) -> dict[str, str]:
    """Return for each of several models, hooks and texts, as `describe_data` has them, the start of a sentence on it.

    It has what differs: "On MODEL, on TEXT", or "At HOOK" if the hooks alone do.
    """
    parts = {data: data.split(", ", 2) for data in described}
    differ = [len({each[place] for each in parts.values()}) > 1 for place in range(3)]
    if differ == [False, True, False]:
        return {data: f"At {hook}" for data, (_, hook, _) in parts.items()}
    shown = {data: [part for part, wanted in zip(each, differ, strict=True) if wanted] for data, each in parts.items()}
    return {data: "On " + ", ".join(each).removeprefix("on ") for data, each in shown.items()}


def is_best(group: Group, groups: Sequence[Group], metric: Metric) -> bool:
    """Return whether a group has a better mean of a metric than all groups of the same contest.

    A group that is alone in it, shares its value, or is worse than the mean (an NMSE of 1 or more) is not the best.
    """
    if metric.best is None or is_worse_than_mean(group.mean):
        return False
    value = group.mean.get(metric.name, math.nan)
    rivals = [
        other.mean.get(metric.name, math.nan)
        for other in groups
        if other is not group and other.contest == group.contest and not is_worse_than_mean(other.mean)
    ]
    known = [rival for rival in rivals if math.isfinite(rival)]
    if not known or not math.isfinite(value):
        return False
    return value < min(known) if metric.best == "min" else value > max(known)
