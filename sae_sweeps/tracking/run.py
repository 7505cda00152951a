"""Weights & Biases, behind the few calls that training needs. Nothing here is imported when tracking is off.

A run is always written to the disk of this machine, in W&B's own format, which waits for no server. With
tracking=online a process beside this one sends it meanwhile (uploader.py).
"""

import contextlib
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.config import TrackingConfig
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.sweep.point import IDENTITY
from sae_sweeps.tracking.background_sync import Uploader, block_signal
from sae_sweeps.tracking.wandb_sync import offline_runs

log = logging.getLogger(__name__)

TOKENS = "tokens"  # the axis of a point's curves
TABLE_ROWS = 10_000  # that W&B shows
HIDDEN = ("train/step", "train/seconds")  # from W&B's automatic charts: other axes, not results

_uploaders: dict[str, Uploader] = {}  # by the server


class Run:
    """One run in W&B, or nothing at all when tracking is off. Whatever W&B cannot do is told once and ends the run, and
    nothing else: its calls raise nothing."""

    def __init__(self, run: Any = None) -> None:
        self._run = run

    def _do(self, what: Callable[[Any], Any]) -> bool:
        if self._run is None:
            return False
        try:
            what(self._run)
        except Exception as error:
            self._run = None
            log.warning("W&B: the run cannot be gone on with (%s)", first_line(error))
            return False
        return True

    def log(self, metrics: dict[str, Any]) -> None:
        self._do(lambda run: run.log(metrics))

    def summary(self, values: dict[str, Any]) -> None:
        self._do(lambda run: run.summary.update(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._do(lambda run: run.log({name: _table(columns, rows)}))

    def scatter(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], x: str, y: str) -> None:
        """A chart of two columns of a table."""

        def draw(run: Any) -> None:
            import wandb

            run.log({name: wandb.plot.scatter(_table(columns, rows), x, y, title=f"{y} against {x}")})

        self._do(draw)

    def lines(self, name: str, series: dict[str, list[tuple[float, float]]], x: str, y: str) -> None:
        """A chart of a line for each of the series, through its points."""

        def draw(run: Any) -> None:
            import wandb

            xs, ys = [[[point[at] for point in points] for points in series.values()] for at in (0, 1)]
            run.log({name: wandb.plot.line_series(xs, ys, keys=list(series), title=f"{y} against {x}", xname=x)})

        self._do(draw)

    def histogram(self, name: str, values: Any) -> None:
        """`values`: numbers, as an array."""

        def draw(run: Any) -> None:
            import wandb

            run.log({name: wandb.Histogram(values)})

        self._do(draw)

    def image(self, file: Path) -> None:
        """A picture, under the name of its file."""

        def show(run: Any) -> None:
            import wandb

            run.log({file.stem: wandb.Image(str(file))})

        self._do(show)

    def html(self, name: str, file: Path) -> None:
        def show(run: Any) -> None:
            import wandb

            run.log({name: wandb.Html(str(file), inject=False)})

        self._do(show)

    def artifact(self, name: str, kind: str, path: Path, metadata: dict[str, Any]) -> None:
        """Files under a name of their own, with versions. A folder is uploaded from where it is: leave it there."""

        def add(run: Any) -> None:
            import wandb

            found = wandb.Artifact(name, kind, metadata=metadata)
            if path.is_dir():
                found.add_dir(str(path), policy="immutable")
            else:
                found.add_file(str(path), policy="mutable")  # a copy: the file is written anew
            run.log_artifact(found, aliases=["latest"])

        self._do(add)

    def finish(self, summary: dict[str, Any] | None = None, *, failed: bool = False) -> bool:
        """Close the run. Whether it has all that it was given."""
        self.summary(summary or {})
        whole = self._do(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
        return whole

    def preempted(self) -> None:
        """Close a run that will go on later."""
        if self._run is not None:
            with contextlib.suppress(Exception):  # the run is closed in any case, and goes on from what is on disk
                self._run.mark_preempting()
            self.finish(failed=True)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows[:TABLE_ROWS]])


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
) -> Run:
    """Begin the run of the point, study or sweep in `folder`, or go on with the one it began before.

    Metrics are plotted against `axis`. The run's id is kept in the folder, in the file `identity`, so that what is
    resumed stays one run. It is written anew from its beginning, `history` first: uploading it replaces what was
    uploaded under the same id. If W&B cannot begin it, a line says why, and there is none.
    """
    if tracking.mode == "off":
        return Run()
    file = folder / identity
    run_id = (read_json(file) or {"id": secrets.token_hex(4)})["id"]
    write_json(file, {"id": run_id, "project": tracking.project, "entity": tracking.entity})
    # or W&B's service sends metrics of its own to the server, of an offline run too, and waits 10 s for one that hangs
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb

        with block_signal(signal.SIGUSR1):  # which Slurm sends to all of a job; to close the run is for us to do
            run = wandb.init(
                project=tracking.project,
                entity=tracking.entity,
                id=run_id,
                name=folder.name,
                group=group,
                job_type=job_type,
                config=config,
                dir=str(folder),
                mode="offline",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
            )
        _define(run, axis)
        written = Path(run.dir).resolve().parent
        for earlier in offline_runs(folder.resolve()):
            if earlier != written:
                shutil.rmtree(earlier)
        for metrics in history:
            run.log(metrics)
        if tracking.mode == "online":
            _send(run.settings.base_url, written, sync_command(folder, group))
    except Exception as error:
        log.warning("W&B: %s has no run in W&B (%s)", folder.name, first_line(error))
        return Run()
    return Run(run)


def _define(run: Any, axis: str) -> None:
    """Say how W&B is to draw the metrics, and which end of each is best."""
    run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric=axis)
    if axis == TOKENS:
        for name in HIDDEN:
            run.define_metric(name, step_metric=axis, hidden=True)
        for metric in METRICS.values():
            run.define_metric(f"eval/{metric.name}", step_metric=axis, summary=metric.best)


def _send(server: str, run: Path, hint: str) -> None:
    if server not in _uploaders:
        _uploaders[server] = Uploader(server)
    _uploaders[server].add(run, hint)


def finish_uploads() -> None:
    """Wait a few seconds for what is not uploaded yet, as the end of the process would."""
    while _uploaders:
        _uploaders.popitem()[1].finish()


def sync_command(folder: Path, sweep: str) -> str:
    """The command that uploads what is in a folder of a sweep."""
    root = next((path.parent for path in (folder, *folder.parents) if path.name == sweep), None)
    elsewhere = "" if root is None or root.absolute() == Path("outputs").absolute() else f" output_root={root}"
    return f"python launch.py task=sync name={sweep}{elsewhere}"
