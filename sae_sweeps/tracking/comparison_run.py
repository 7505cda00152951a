"""The run in W&B that compares the points of a sweep: tables, charts, the best of them, and the report."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_sweeps.config import TrackingConfig
from sae_sweeps.config.differences import find_varying, flatten
from sae_sweeps.config.saes import architecture_title
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import read_json, sha256, write_json
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, Group, group_by_seed, point_label
from sae_sweeps.tracking.run import start_run

log = logging.getLogger(__name__)

IDENTITY = "wandb_compare.json"  # in the sweep's folder: the id of the run, and what it was made of
JOB_TYPE = "compare"
AXIS = "version"  # of the run's one step
PARETO = {"nmse": "NMSE", "ce_degradation": "CE degradation"}  # each against L0
POINTS, GROUPS, REPORT = "points", "groups", "report"  # what it logs


def compare_run(
    sweep: Sweep, tracking: TrackingConfig, points: Sequence[ComparedPoint], report: Path | None = None
) -> None:
    """Create or update the run that compares the points of a sweep, with an HTML report if there is one.

    It stays one run. Where nothing has changed it is left as it is. That W&B fails is told in a line, and nothing more.
    """
    tracking = as_the_points(tracking, [point.config for point in points])
    done = [point for point in points if point.results is not None]
    if tracking.mode == "off" or not done:
        return
    try:
        with FileLock(sweep.folder / ".compare.lock", timeout=0):
            _update(sweep, tracking, points, report)
    except Timeout:
        return  # another process is at it
    except Exception as error:
        log.warning("W&B: the comparison of %s has no run (%s)", sweep.name, describe_error(error))


def as_the_points(tracking: TrackingConfig, configs: Sequence[Mapping[str, Any]]) -> TrackingConfig:
    """The tracking of a command, in the project of the sweep's points. Online if either is, and off if either is."""
    if not configs:
        return tracking
    theirs = configs[-1]["tracking"]
    modes = {tracking.mode, theirs["mode"]}
    mode = next((mode for mode in ("off", "online") if mode in modes), "offline")
    return replace(tracking, mode=mode, project=theirs["project"], entity=theirs["entity"])


def _update(sweep: Sweep, tracking: TrackingConfig, points: Sequence[ComparedPoint], report: Path | None) -> None:
    groups = group_by_seed(points)
    columns, rows = _points_table(points)
    known = read_json(sweep.folder / IDENTITY) or {}
    made_of = hashlib.sha256(json.dumps([columns, rows], default=str).encode()).hexdigest()
    with_report = None if report is None else sha256(report)
    if known.get("made_of") == made_of and with_report in (None, known.get("report")):
        return
    config = {"sweep": sweep.name, "points": len(points), "done": sum(point.results is not None for point in points)}
    run = start_run(
        tracking, sweep.folder, group=sweep.name, job_type=JOB_TYPE, config=config, axis=AXIS, identity=IDENTITY
    )
    run.table(POINTS, columns, rows)
    run.table(GROUPS, *_groups_table(groups))
    for name, title in PARETO.items():
        placed = [
            [group.label, group.mean["l0"], group.mean[name]] for group in groups if {"l0", name} <= group.mean.keys()
        ]
        run.scatter(f"{name}_against_l0", ["SAE", "L0", title], placed, "L0", title)
        run.lines(f"{name}_against_l0_by_size", _series(groups, name), "L0", title)
    if report is not None:
        run.html(REPORT, report)
        run.artifact(f"{sweep.name}-{REPORT}", REPORT, report, config)
    if run.finish(_best(groups)):
        known = read_json(sweep.folder / IDENTITY)
        write_json(sweep.folder / IDENTITY, {**known, "made_of": made_of, "report": with_report})


def _points_table(points: Sequence[ComparedPoint]) -> tuple[list[str], list[list[Any]]]:
    columns = ["SAE", "point", "state", "architecture", "dict_size", "k", "seed", *METRICS]
    told = find_varying([point.config for point in points])
    more = [name for name in told if name not in ("sae.architecture", *columns)]
    rows = []
    for point in points:
        settings = flatten(point.config)
        named = [settings[name] for name in ("sae.architecture", "dict_size", "k", "seed")]
        metrics = [point.metrics.get(name) for name in METRICS]
        others = [_cell(settings.get(name)) for name in more]
        rows.append([point_label(point), point.name, point.state.state, *named, *metrics, *others])
    return [*columns, *more], rows


def _cell(value: Any) -> Any:
    """A value as a column of settings takes it: text, where W&B would refuse numbers beside it."""
    return None if value is None else json.dumps(value) if not isinstance(value, str) else value


def _groups_table(groups: Sequence[Group]) -> tuple[list[str], list[list[Any]]]:
    """A row for points that differ in their seeds alone: of each metric the mean and the standard deviation."""
    columns = ["SAE", "seeds", *(f"{name}{what}" for name in METRICS for what in ("", " sd"))]
    rows = [
        [
            group.label,
            sum(point.results is not None for point in group.points),
            *(value for name in METRICS for value in (group.mean.get(name), group.spread.get(name))),
        ]
        for group in groups
    ]
    return columns, rows


def _series(groups: Sequence[Group], name: str) -> dict[str, list[tuple[float, float]]]:
    """Of each architecture and size, (L0, metric) in the order of L0."""
    found: dict[str, list[tuple[float, float]]] = {}
    for group in groups:
        if {"l0", name} <= group.mean.keys():
            config = group.points[0].config
            architecture = config["sae"]["architecture"]
            title = f"{architecture_title(architecture)} {config['dict_size']}"
            found.setdefault(title, []).append((group.mean["l0"], group.mean[name]))
    return {title: sorted(places) for title, places in found.items()}


def _best(groups: Sequence[Group]) -> dict[str, Any]:
    """Of each metric that has a better end, the best mean and whose it is."""
    found: dict[str, Any] = {}
    for metric in METRICS.values():
        having = [group for group in groups if metric.name in group.mean]
        if metric.best is not None and having:
            choose = min if metric.best == "min" else max
            first = choose(having, key=lambda group: group.mean[metric.name])
            found |= {f"best/{metric.name}": first.mean[metric.name], f"best/{metric.name}/SAE": first.label}
    return found
