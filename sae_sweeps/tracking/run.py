"""Writes the W&B runs of points, studies and sweeps. wandb is not imported while tracking is off.

Of paths in configurations, summaries, tables and artifacts only the end is given: a run is seen by others.

A run is always written to the local disk, in W&B's offline format, so training never waits for a server. With
tracking=online a background process uploads the run while it is written (background_sync.py).
"""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.config import TrackingConfig
from sae_sweeps.config.commands import format_command
from sae_sweeps.config.differences import shorten_paths
from sae_sweeps.config.names import shorten, to_artifact_name
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.sweep.point import IDENTITY
from sae_sweeps.sweep.wandb_environment import describe_wandb_error
from sae_sweeps.tracking.background_sync import Uploads, block_signal
from sae_sweeps.tracking.wandb_sync import SERVICE, mark_incomplete, offline_runs

log = logging.getLogger(__name__)

TOKENS = "tokens"  # x axis of training curves
TABLE_ROWS = 10_000  # largest number of rows of a table that W&B shows
NAMED_ALONE = ("train", "compare")  # job types whose runs are named by the folder alone: points and sweeps
HIDDEN = ("train/step", "train/seconds")  # left out of W&B's automatic charts: they are axes, not results

# A module global, because the runs of all points, studies and comparisons in this process share one uploader per
# server, and atexit waits for the uploader however the process ends.
PROCESS_UPLOADS = Uploads()


class Run:
    """A run in W&B, or a stand-in that does nothing while tracking is off.

    No method raises. After the first error in W&B a warning is logged, and further calls do nothing.
    """

    def __init__(self, run: Any = None) -> None:
        self._run = run

    def _try(self, action: Callable[[Any], Any]) -> bool:
        """Call `action` with the wandb run object. Returns False if tracking is off or stopped, or the action fails."""
        if self._run is None:
            return False
        try:
            action(self._run)
        except Exception as error:
            _mark_incomplete(self._run)
            self._run = None
            log.warning(
                "W&B: logging stopped for this run (%s). Work continues, and the results are still written to disk",
                describe_wandb_error(error),
            )
            return False
        return True

    def log(self, metrics: dict[str, Any]) -> None:
        """Log the metrics (name -> value) of one step to W&B. Metrics without a value are left out."""
        self._try(lambda run: run.log(_drop_missing(metrics)))

    def summary(self, values: dict[str, Any]) -> None:
        """Set values (name -> value) in the summary of the W&B run. Values that are None are left out."""
        self._try(lambda run: run.summary.update(shorten_paths(_drop_missing(values))))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table to W&B under a name. Rows after the first TABLE_ROWS are left out."""
        self._try(lambda run: run.log({name: _table(columns, rows)}))

    def scatter(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], x: str, y: str) -> None:
        """Log a scatter plot to W&B: a table given by columns and rows, and the names of the columns `x` and `y`."""

        def draw(run: Any) -> None:
            import wandb

            run.log({name: wandb.plot.scatter(_table(columns, rows), x, y, title=f"{y} against {x}")})

        self._try(draw)

    def lines(self, name: str, series: dict[str, list[tuple[float, float]]], x: str, y: str) -> None:
        """Log a line plot to W&B. `series`: label of a line -> (x, y) pairs; `x`, `y`: titles of the axes."""

        def draw(run: Any) -> None:
            import wandb

            xs, ys = [[[pair[axis] for pair in pairs] for pairs in series.values()] for axis in (0, 1)]
            run.log({name: wandb.plot.line_series(xs, ys, keys=list(series), title=f"{y} against {x}", xname=x)})

        self._try(draw)

    def histogram(self, name: str, values: Any) -> None:
        """Log a histogram of the finite numbers in an array to W&B under a name; nothing if there are none."""

        def draw(run: Any) -> None:
            import numpy as np
            import wandb

            finite = np.asarray(values)[np.isfinite(values)]
            if len(finite):
                run.log({name: wandb.Histogram(finite)})

        self._try(draw)

    def image(self, file: Path) -> None:
        """Log an image file to W&B. The name in W&B is the name of the file without its suffix."""

        def show(run: Any) -> None:
            import wandb

            run.log({file.stem: wandb.Image(str(file))})

        self._try(show)

    def html(self, name: str, file: Path) -> None:
        """Log an HTML file to W&B under a name."""

        def show(run: Any) -> None:
            import wandb

            run.log({name: wandb.Html(str(file), inject=False)})

        self._try(show)

    def artifact(self, name: str, kind: str, path: Path, metadata: dict[str, Any]) -> None:
        """Log a file or folder to W&B as a versioned artifact with the alias "latest". `kind`: type of the artifact.

        A folder must stay in place, because W&B uploads the files from there.
        """

        def add(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(to_artifact_name(name), kind, metadata=shorten_paths(metadata))
            if path.is_dir():
                artifact.add_dir(str(path), policy="immutable")
            else:
                artifact.add_file(str(path), policy="mutable")  # W&B copies the file, because it may be rewritten
            run.log_artifact(artifact, aliases=["latest"])

        self._try(add)

    def finish(self, summary: dict[str, Any] | None = None, *, failed: bool = False) -> bool:
        """Set the summary and close the W&B run. Returns whether every call to W&B succeeded; False if tracking is off.

        failed: mark the run as failed
        """
        self.summary(summary or {})
        complete = self._try(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
        return complete

    def preempted(self) -> None:
        """Close the W&B run and mark it as preempted, because the point or study resumes later."""
        if self._run is not None:
            with contextlib.suppress(Exception):  # without the mark the run still resumes from the files on disk
                self._run.mark_preempting()
            self.finish(failed=True)


def _drop_missing(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are not None, NaN or infinite: W&B would show these as text."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[shorten_paths(row) for row in rows[:TABLE_ROWS]])


def start_run(
    tracking: TrackingConfig,
    folder: Path,
    *,
    group: str,
    job_type: str,
    config: dict[str, Any],
    history: Sequence[dict[str, float]] = (),
    axis: str = TOKENS,
    identity: str = IDENTITY,
    uploads: Uploads = PROCESS_UPLOADS,
) -> Run:
    """Start the W&B run of the point, study or sweep in `folder`, or resume the run that was started there before.

    The run is written to disk from the start again, with `history` as the first steps; uploading it replaces what was
    uploaded under the same id. With tracking=online, `uploads` sends the run to the server. If W&B cannot start the
    run, a warning is logged and the returned run does nothing.

    history: metrics of the steps before a resume, oldest first
    axis: name of the metric on the x axis of all charts
    identity: file in `folder` that keeps the id of the run, so that a resumed point stays one run
    """
    if tracking.mode == "off":
        return Run()
    run: Any = None
    try:
        run = _init_run(tracking, folder, _load_run_id(folder / identity, tracking), group, job_type, config)
        _define_metrics(run, axis)
        offline_run = Path(run.dir).resolve().parent
        for earlier in offline_runs(folder.resolve()):
            if earlier != offline_run:
                shutil.rmtree(earlier)
        for metrics in history:
            run.log(_drop_missing(metrics))
        if tracking.mode == "online":
            uploads.add(run.settings.base_url, offline_run, sync_command(folder, group))
    except Exception as error:
        _mark_incomplete(run)
        log.warning(
            "W&B: could not start the run of %s (%s). W&B will not show this run; results are still written to disk. "
            "task=sync makes the run of a finished point from them",
            *(folder.name, describe_wandb_error(error)),
        )
        return Run()
    return Run(run)


def _mark_incomplete(run: Any) -> None:
    """Mark the files of a wandb run object as incomplete, if there are any, so that task=sync makes them again."""
    with contextlib.suppress(Exception):  # W&B has failed already
        mark_incomplete(Path(run.dir).resolve().parent)


def _load_run_id(file: Path, tracking: TrackingConfig) -> str:
    """Return the id of the W&B run from the file, or a new id if the file is missing.

    The file is written again with the id and the current project and entity.
    """
    run_id: str = (read_record(file, {"id": str}) or {"id": secrets.token_hex(4)})["id"]
    write_record(file, {"id": run_id, "project": tracking.project, "entity": tracking.entity})
    return run_id


def _init_run(
    tracking: TrackingConfig, folder: Path, run_id: str, group: str, job_type: str, config: dict[str, Any]
) -> Any:
    """Return a wandb run object in offline mode, so that it writes to `folder` and contacts no server."""
    # otherwise W&B's service sends telemetry even for an offline run, and waits 10 s for a server that hangs
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.pop(SERVICE, None)  # of a process that began this one, such as a notebook: it may be in another folder
    import wandb

    # Slurm sends SIGUSR1 to all processes of a job; W&B's service must survive it for this process to close the run
    with block_signal(signal.SIGUSR1):
        return wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            id=run_id,
            name=folder.name if job_type in NAMED_ALONE else f"{job_type} {folder.name}",
            group=shorten(group),
            job_type=job_type,
            config=shorten_paths(config),
            tags=tracking.tags,
            notes=tracking.notes,
            dir=str(folder),
            mode="offline",
            reinit="create_new",
            # without W&B's own list of machine, user, folders and words, of which paths are a part
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
        )


def _define_metrics(run: Any, axis: str) -> None:
    """Set the x axis of all metrics, hide the axes from charts, and set whether low or high values are best."""
    run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric=axis)
    if axis == TOKENS:
        for name in HIDDEN:
            run.define_metric(name, step_metric=axis, hidden=True)
        for metric in METRICS.values():
            run.define_metric(f"eval/{metric.name}", step_metric=axis, summary=metric.best)


def finish_uploads(uploads: Uploads = PROCESS_UPLOADS) -> None:
    """Wait for unfinished uploads now instead of at the end of the process, while they make progress."""
    uploads.finish()


def sync_command(folder: Path, sweep: str) -> str:
    """Return the task=sync command that uploads the runs of a sweep.

    folder: the folder of the sweep or a folder inside; output_root is found from it
    sweep: name of the sweep
    """
    root = next((path.parent for path in (folder, *folder.parents) if path.name == sweep), None)
    return format_command("sync", sweep) if root is None else format_command("sync", sweep, root)
