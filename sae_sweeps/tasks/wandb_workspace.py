"""Task `wandb_workspace`: a saved view in W&B that compares the points of a sweep."""

import importlib.util
import logging
from typing import Any

from sae_sweeps.config import Config
from sae_sweeps.runtime.errors import NO_POINTS, NotRunError, first_line
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.sweep import Sweep
from sae_sweeps.tracking.comparison_run import GROUPS, PARETO, POINTS, combine_tracking
from sae_sweeps.tracking.wandb_sync import unreachable_reason

log = logging.getLogger(__name__)

KNOWN = "wandb_workspace.json"  # in the sweep's folder: the address of the view that it has
CURVES = {"train/mse": "MSE", "train/loss": "loss", "train/l0": "L0", "train/dead_fraction": "dead latents"}
COMPARED = ("eval/nmse", "eval/ce_degradation", "eval/l0", "eval/dead_fraction")
NEEDS = "it takes a key (`wandb login`, or WANDB_API_KEY) and a server of W&B's own, which has saved views"


def run(sweep: Sweep, config: Config) -> list[str]:
    """Create the view, or bring the one that was created before up to date. Returns why it could not be.

    Raises: NotRunError if there is nothing that it could show, or nothing that it could be made with.
    """
    known = sweep.read()["points"]
    if not known:
        raise NotRunError(NO_POINTS)
    tracking = combine_tracking(config.tracking, [point["config"] for point in known.values()])
    if tracking.mode != "online":
        first = "" if tracking.mode == "off" else "; task=sync uploads its runs"
        raise NotRunError(f"a workspace lives on the W&B server: tracking=online is needed, not {tracking.mode}{first}")
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise NotRunError("wandb-workspaces is not installed here: pip install wandb-workspaces")
    import wandb

    server = wandb.setup().settings.base_url
    if (why := unreachable_reason(server)) is not None:
        raise NotRunError(f"W&B: {why}; a workspace lives on the server")
    try:
        entity = tracking.entity or wandb.Api(timeout=20).default_entity
        if entity is None:
            return [f"{server} names no entity for this key: set tracking.entity"]
        view = workspace(sweep.name, entity, tracking.project)
        address = _save(view, read_json(sweep.folder / KNOWN))
    except Exception as error:
        return [f"{server} refused ({first_line(error)}); {NEEDS}"]
    write_json(sweep.folder / KNOWN, address)
    log.info("workspace: %s", address["url"])
    return []


def _save(view: Any, known: dict[str, str] | None) -> dict[str, str]:
    """Save the view in the place of the one that is known, if that is still there. Returns where it is."""
    import wandb_workspaces.workspaces as ws

    if known is not None and (known["entity"], known["project"]) == (view.entity, view.project):
        try:
            earlier = ws.Workspace.from_url(known["url"])
        except Exception as error:
            log.warning(
                "the workspace %s is not there any more (%s); a new one is made", known["url"], first_line(error)
            )
        else:
            earlier.name, earlier.sections = view.name, view.sections
            earlier.settings, earlier.runset_settings = view.settings, view.runset_settings
            view = earlier
    saved = view.save()
    return {"url": saved.url, "entity": saved.entity, "project": saved.project}


def workspace(name: str, entity: str, project: str) -> Any:
    """The view: the runs of the sweep by job type, their curves over tokens, and what is compared at the end. They are
    grouped down to single runs, for W&B draws a group as one."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    curves: list[Any] = [wr.LinePlot(title=title, x="tokens", y=[metric]) for metric, title in CURVES.items()]
    scatters = [
        wr.ScatterPlot(title=f"{title} against L0", x=wr.SummaryMetric("eval/l0"), y=wr.SummaryMetric(f"eval/{metric}"))
        for metric, title in PARETO.items()
    ]
    axes = ["sae.architecture", "dict_size", "k"]
    parallel = wr.ParallelCoordinatesPlot(
        title="settings and results",
        columns=[
            *(wr.ParallelCoordinatesPlotColumn(wr.Config(axis)) for axis in axes),
            *(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(metric)) for metric in COMPARED),
        ],
    )
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
