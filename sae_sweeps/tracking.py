"""Weights & Biases, behind the few calls that training needs. Nothing here is imported when tracking is off."""

import contextlib
import logging
import secrets
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.config import TrackingConfig
from sae_sweeps.errors import first_line
from sae_sweeps.files import read_json, write_json

log = logging.getLogger(__name__)

IDENTITY = "wandb_run.json"  # in a point's folder: the run that it has in W&B
TABLE_ROWS = 10_000  # that W&B shows


class Run:
    """One run in W&B, or nothing at all when tracking is off."""

    def __init__(self, run: Any = None) -> None:
        self._run = run

    def log(self, metrics: dict[str, float]) -> None:
        if self._run is not None:
            self._run.log(metrics)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if self._run is not None:
            import wandb

            self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows[:TABLE_ROWS]])})

    def histogram(self, name: str, values: Any) -> None:
        """`values`: numbers, as an array."""
        if self._run is not None:
            import wandb

            self._run.log({name: wandb.Histogram(values)})

    def image(self, file: Path) -> None:
        """A picture, under the name of its file."""
        if self._run is not None:
            import wandb

            self._run.log({file.stem: wandb.Image(str(file))})

    def finish(self, summary: dict[str, Any] | None = None, *, failed: bool = False) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.summary.update(summary or {})
            run.finish(exit_code=int(failed))
        except Exception as error:
            if not failed:
                raise
            log.warning("W&B: the failed run could not be closed (%s)", first_line(error))

    def preempted(self) -> None:
        """Close a run that will go on later."""
        if self._run is not None:
            with contextlib.suppress(Exception):  # the run is closed in any case, and goes on from what is on disk
                self._run.mark_preempting()
            self.finish(failed=True)


@contextlib.contextmanager
def _usr1_kept_off() -> Iterator[None]:
    """Have W&B's own process, which is begun in here, not hear the USR1 that Slurm sends to every process of a job
    before its time is up: the run is to be closed, and that is for us to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_run(
    tracking: TrackingConfig,
    folder: Path,
    *,
    group: str,
    job_type: str,
    config: dict[str, Any],
    history: Sequence[dict[str, float]] = (),
    axis: str = "tokens",
) -> Run:
    """Begin the run of the point or study in `folder`, or go on with the one it began before.

    Metrics are plotted against `axis`. The run's id is kept in the folder, so that what is resumed stays one run. An
    offline run that goes on is written anew from its beginning, `history` first: uploading it replaces what was
    uploaded under the same id. If W&B refuses to begin (no key, say), the run goes on offline and a line says how to
    upload it.
    """
    if tracking.mode == "off":
        return Run()
    import wandb

    identity = folder / IDENTITY
    known = read_json(identity)
    run_id = known["id"] if known else secrets.token_hex(4)
    write_json(identity, {"id": run_id, "project": tracking.project, "entity": tracking.entity})

    def begin(mode: Any) -> Any:
        return wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            id=run_id,
            name=folder.name,
            group=group,
            job_type=job_type,
            config=config,
            dir=str(folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    with _usr1_kept_off():
        try:
            run = begin(tracking.mode)
        except wandb.Error as error:
            if tracking.mode == "offline":
                raise
            log.warning("W&B: %s; the run goes on offline, upload it later with task=sync", first_line(error))
            run = begin("offline")
    run.define_metric(axis)
    run.define_metric("*", step_metric=axis)
    if run.offline:
        for earlier in (folder / "wandb").resolve().glob("offline-run-*"):
            if earlier != Path(run.dir).resolve().parent:
                shutil.rmtree(earlier)
        for metrics in history:
            run.log(metrics)
    return Run(run)
