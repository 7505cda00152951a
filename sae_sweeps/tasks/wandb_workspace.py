"""Task `wandb_workspace`: saves a W&B workspace (a saved view) that compares the points of a sweep."""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.config.synthetic import is_synthetic
from sae_sweeps.runtime.errors import NO_POINTS, NotRunError, first_line
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.wandb_environment import find_problem
from sae_sweeps.tracking.comparison_run import GROUPS, PARETO, POINTS, combine_tracking
from sae_sweeps.tracking.wandb_sync import unreachable_reason

log = logging.getLogger(__name__)

ADDRESS = "wandb_workspace.json"  # in the sweep's folder: url, entity and project of the saved view
CURVES = {"train/mse": "MSE", "train/loss": "loss", "train/l0": "L0", "train/dead_fraction": "dead latents"}
COMPARED = ("nmse", "ce_degradation", "mcc", "feature_f1", "l0", "dead_fraction")
LANGUAGE, PLANTED = ("ce_degradation",), ("mcc", "feature_f1")  # with a language model; of synthetic activations
REQUIREMENTS = "a workspace needs an API key (`wandb login` or WANDB_API_KEY) and a server that supports saved views"


def run(sweep: Sweep, config: Config) -> list[str]:
    """Create the W&B workspace of the sweep, or update the one that an earlier command created.

    Returns a message if the server refused the workspace, else an empty list.

    Raises: NotRunError if the sweep has no points, tracking is not online, wandb-workspaces is not installed, or the
        server cannot be reached.
    """
    points = sweep.read()["points"]
    if not points:
        raise NotRunError(NO_POINTS)
    tracking = combine_tracking(config.tracking, [point["config"] for point in points.values()])
    if tracking.mode != "online":
        upload = "" if tracking.mode == "off" else "; upload the runs with task=sync"
        raise NotRunError(
            f"tracking={tracking.mode}: must be online, because W&B keeps a workspace on the server. "
            f"Fix: tracking=online{upload}"
        )
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise NotRunError(
            "task=wandb_workspace needs the package wandb-workspaces, which is not installed. "
            "Fix: pip install wandb-workspaces"
        )
    if (problem := find_problem()) is not None:
        raise NotRunError(str(problem))
    import wandb

    server = wandb.setup().settings.base_url
    if (reason := unreachable_reason(server)) is not None:
        raise NotRunError(f"W&B: {reason}. No workspace was saved; try again when the server answers")
    try:
        entity = tracking.entity or wandb.Api(timeout=20).default_entity
        if entity is None:
            return [f"{server} has no default entity for this API key. Fix: set tracking.entity"]
        left_out = LANGUAGE if all(is_synthetic(point["config"]) for point in points.values()) else PLANTED
        view = build_workspace(sweep.name, entity, tracking.project, left_out)
        address = _save(view, read_record(sweep.folder / ADDRESS, {"url": str, "entity": str, "project": str}))
    except Exception as error:
        return [f"{server} refused the workspace ({first_line(error)}); {REQUIREMENTS}"]
    write_record(sweep.folder / ADDRESS, address)
    log.info("workspace: %s", address["url"])
    return []


def _save(view: Any, known: dict[str, str] | None) -> dict[str, str]:
    """Save the workspace `view`, in place of the earlier one if that still exists.

    known: url, entity and project of the workspace saved before; None if there is none

    Returns url, entity and project of the saved workspace.
    """
    import wandb_workspaces.workspaces as ws

    if known is not None and (known["entity"], known["project"]) == (view.entity, view.project):
        try:
            earlier = ws.Workspace.from_url(known["url"])
        except Exception as error:
            log.warning("could not load the workspace %s (%s); saving a new one", known["url"], first_line(error))
        else:
            earlier.name, earlier.sections = view.name, view.sections
            earlier.settings, earlier.runset_settings = view.settings, view.runset_settings
            view = earlier
    saved = view.save()
    return {"url": saved.url, "entity": saved.entity, "project": saved.project}


def build_workspace(name: str, entity: str, project: str, left_out: Sequence[str] = PLANTED) -> Any:
    """Build the W&B workspace of a sweep: runs by job type, training curves, and charts that compare final metrics.

    The runs are grouped down to single runs, because W&B draws a group as one line.

    name: name of the sweep
    left_out: metrics that its points do not have
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    curves: list[Any] = [wr.LinePlot(title=title, x="tokens", y=[metric]) for metric, title in CURVES.items()]
    scatters = [
        wr.ScatterPlot(title=f"{title} against L0", x=wr.SummaryMetric("eval/l0"), y=wr.SummaryMetric(f"eval/{metric}"))
        for metric, title in PARETO.items()
        if metric not in left_out
    ]
    axes: list[Any] = [
        *(wr.Config(axis) for axis in ("sae.architecture", "dict_size", "k")),
        *(wr.SummaryMetric(f"eval/{metric}") for metric in COMPARED if metric not in left_out),
    ]
    columns = [wr.ParallelCoordinatesPlotColumn(axis) for axis in axes]
    parallel = wr.ParallelCoordinatesPlot(title="settings and results", columns=columns)
    compared: list[Any] = [
        *scatters,
        wr.BarPlot(title="dead latents", metrics=["eval/dead_fraction"], orientation="h"),
        parallel,
        wr.RunComparer(diff_only="split"),
    ]
    tables: list[Any] = [wr.WeavePanelSummaryTable(table_name=table) for table in (POINTS, GROUPS)]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{name}: comparison",
        sections=[
            ws.Section(name="Comparison", panels=compared, is_open=True),
            ws.Section(name="Training", panels=curves, is_open=True),
            ws.Section(name="Tables", panels=tables, is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis="tokens", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == name),
            groupby=[ws.Metric(key) for key in ("Group", "JobType", "Name")],
        ),
    )
