"""Writes the W&B run that compares a sweep's points: tables, charts, best value of each metric, and HTML report."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_sweeps.config import TrackingConfig
from sae_sweeps.config.commands import format_command
from sae_sweeps.config.differences import find_varying, flatten
from sae_sweeps.config.saes import architecture_title
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import sha256
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, Group, group_by_seed, point_label
from sae_sweeps.tracking.run import start_run

log = logging.getLogger(__name__)

IDENTITY = "wandb_compare.json"  # in the sweep's folder: id of the run, and hashes of the table and report in it
JOB_TYPE = "compare"
AXIS = "version"  # x axis of the run, which has only one step
# metrics plotted against L0, of SAEs that have them
PARETO = {"nmse": "NMSE", "ce_degradation": "CE degradation", "mcc": "MCC", "feature_f1": "F1"}
POINTS, GROUPS, REPORT = "points", "groups", "report"  # names of the logged tables and the logged HTML page


def compare_run(
    sweep: Sweep, tracking: TrackingConfig, points: Sequence[ComparedPoint], report: Path | None = None
) -> None:
    """Create or update the W&B run that compares the points of a sweep. `report`: HTML page to add; None for none.

    Nothing is written if tracking is off, no point is done, or neither points nor report have changed. If W&B fails, a
    warning is logged and nothing is raised.
    """
    tracking = combine_tracking(tracking, [point.config for point in points])
    done = [point for point in points if point.results is not None]
    if tracking.mode == "off" or not done:
        return
    try:
        with FileLock(sweep.folder / ".compare.lock", timeout=0):
            _update(sweep, tracking, points, report)
    except Timeout:
        return  # another process is writing the same run
    except Exception as error:
        log.warning(
            "W&B: could not write the comparison run of sweep %s (%s). To try again: %s",
            *(sweep.name, describe_error(error), format_command("report", sweep.name, sweep.folder.parent)),
        )


def combine_tracking(tracking: TrackingConfig, configs: Sequence[Mapping[str, Any]]) -> TrackingConfig:
    """Return the command's tracking settings with project and entity taken from the latest point of the sweep.

    configs: configurations of the sweep's points, latest last; if empty, the settings are returned unchanged

    The mode is "off" if the command or the latest point has "off", else "online" if either has "online".
    """
    if not configs:
        return tracking
    latest = configs[-1]["tracking"]
    modes = {tracking.mode, latest["mode"]}
    mode = next((mode for mode in ("off", "online") if mode in modes), "offline")
    return replace(tracking, mode=mode, project=latest["project"], entity=latest["entity"])


def _update(sweep: Sweep, tracking: TrackingConfig, points: Sequence[ComparedPoint], report: Path | None) -> None:
    """Write the comparison run if the points or the report have changed since the run was last written."""
    groups = group_by_seed(points)
    columns, rows = _points_table(points)
    written = read_record(sweep.folder / IDENTITY, dict) or {}
    table_hash = hashlib.sha256(json.dumps([columns, rows], default=str).encode()).hexdigest()
    report_hash = None if report is None else sha256(report)
    if written.get("made_of") == table_hash and report_hash in (None, written.get("report")):
        return
    config = {"sweep": sweep.name, "points": len(points), "done": sum(point.results is not None for point in points)}
    run = start_run(
        tracking, sweep.folder, group=sweep.name, job_type=JOB_TYPE, config=config, axis=AXIS, identity=IDENTITY
    )
    run.table(POINTS, columns, rows)
    run.table(GROUPS, *_groups_table(groups))
    for name, title in PARETO.items():
        rows = [
            [group.label, group.mean["l0"], group.mean[name]] for group in groups if {"l0", name} <= group.mean.keys()
        ]
        if not rows:
            continue
        run.scatter(f"{name}_against_l0", ["SAE", "L0", title], rows, "L0", title)
        run.lines(f"{name}_against_l0_by_size", _series(groups, name), "L0", title)
    if report is not None:
        run.html(REPORT, report)
        run.artifact(f"{sweep.name}-{REPORT}", REPORT, report, config)
    if run.finish(_best(groups)):
        identity = read_record(sweep.folder / IDENTITY, dict) or {}
        write_record(sweep.folder / IDENTITY, {**identity, "made_of": table_hash, "report": report_hash})


def _points_table(points: Sequence[ComparedPoint]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table of points: name, state, metrics, and every setting that varies."""
    columns = ["SAE", "point", "state", "architecture", "dict_size", "k", "seed", *METRICS]
    varying = find_varying([point.config for point in points])
    more = [name for name in varying if name not in ("sae.architecture", *columns)]
    rows = []
    for point in points:
        settings = flatten(point.config)
        named = [settings[name] for name in ("sae.architecture", "dict_size", "k", "seed")]
        metrics = [point.metrics.get(name) for name in METRICS]
        others = [_cell(settings.get(name)) for name in more]
        rows.append([point_label(point), point.name, point.state.state, *named, *metrics, *others])
    return [*columns, *more], rows


def _cell(value: Any) -> Any:
    """Return the value of a setting as text, because W&B refuses a column that mixes text and numbers.

    None stays None.
    """
    return None if value is None else json.dumps(value) if not isinstance(value, str) else value


def _groups_table(groups: Sequence[Group]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table of seed groups: number of finished seeds, mean and sd of each metric."""
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
    """Return the (L0, metric) pairs of each architecture and dictionary size, sorted by L0. `name`: of the metric."""
    series: dict[str, list[tuple[float, float]]] = {}
    for group in groups:
        if {"l0", name} <= group.mean.keys():
            config = group.points[0].config
            architecture = config["sae"]["architecture"]
            title = f"{architecture_title(architecture)} {config['dict_size']}"
            series.setdefault(title, []).append((group.mean["l0"], group.mean[name]))
    return {title: sorted(pairs) for title, pairs in series.items()}


def _best(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the best mean of each metric that should be low or high, and the label of the SAE that reaches it.

    Keys: best/METRIC and best/METRIC/SAE.
    """
    best: dict[str, Any] = {}
    for metric in METRICS.values():
        measured = [group for group in groups if metric.name in group.mean]
        if metric.best is not None and measured:
            choose = min if metric.best == "min" else max
            first = choose(measured, key=lambda group: group.mean[metric.name])
            best |= {f"best/{metric.name}": first.mean[metric.name], f"best/{metric.name}/SAE": first.label}
    return best
