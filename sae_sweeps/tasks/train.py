"""Task `train`: trains and evaluates the points of a pack side by side."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.activations.source import ActivationSource, load_source
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.descriptors import count_free
from sae_sweeps.runtime.devices import choose_device, describe_unused_gpu, device_name, require_precision
from sae_sweeps.runtime.errors import BrokenTextError, describe_error
from sae_sweeps.runtime.held import find_lost
from sae_sweeps.runtime.memory import free_bytes
from sae_sweeps.runtime.progress import SweepProgress, progress_callback
from sae_sweeps.saes import Step
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.calibration import record_run
from sae_sweeps.sweep.packs import Limits, split_by_files, split_to_fit
from sae_sweeps.sweep.point import OnFinished
from sae_sweeps.tasks.point import FinishedElsewhere, PointRun
from sae_sweeps.training.saving import Saver
from sae_sweeps.training.trainer import Trainer, train

log = logging.getLogger(__name__)


def run(points: Sequence[Point], limits: Limits, progress: SweepProgress, on_finished: OnFinished) -> None:
    """Train and evaluate the SAEs of points that share an activation stream, and write results to the points' folders.

    A point that has results is skipped. An error in one point ends only this point.

    progress: the display to which each point adds a line
    on_finished: called once per point, with the point and the error with which it failed (None: the point is done)
    Raises: ConfigError if the language model, which all points need, cannot be loaded.
    """
    with ExitStack() as log_files:
        unfinished = []
        for point in points:
            if point_state.is_done(point.folder):
                log.info("%s: the point is already done and is skipped", point.name)
                on_finished(point, None)
                continue
            with _isolated(point, on_finished):
                log_files.enter_context(logs.log_file(point.folder))
                unfinished.append(point)
        if not unfinished:
            return
        try:
            _train_in_parts(unfinished, limits, progress, on_finished)
        except Exception as error:
            logs.log_failure(log, "the pack", error)
            raise


def _train_in_parts(points: Sequence[Point], limits: Limits, progress: SweepProgress, on_finished: OnFinished) -> None:
    """Load the language model, split the points into parts that fit in memory, and train one part after another."""
    config, began = points[0].config, time.perf_counter()
    source = load_source(config, choose_device(config.device))
    trainable = []
    for point in points:
        signals.raise_if_stopped()
        with _isolated(point, on_finished):
            require_precision(point.config.training.precision, source.device)
            source.at(point.config.model.hook).held_out(point.config.evaluation.tokens)
            trainable.append(point)
    if not trainable:
        return
    memory, limited_by = limits.memory, "hydra.launcher.max_memory"
    if memory is None:
        memory, limited_by = 0.9 * free_bytes(source.device), "free memory"
    openable = split_by_files(trainable, count_free())
    facts = read_model_info(config.model.name)
    parts = [part for pack in openable for part in split_to_fit(pack, facts, source.device.type, memory, limited_by)]
    loading = time.perf_counter() - began  # seconds to load the model and the held-out data, added to the first part
    for part in parts:
        seconds = _train_pack(part, source, limits.patience, progress, on_finished)
        if seconds is not None:
            seconds["pack"] += loading
            is_local = point_state.this_job() is None
            record_run(part, facts, device_name(source.device), seconds, is_local=is_local)
        loading = 0.0


def _train_pack(
    points: Sequence[Point],
    source: ActivationSource,
    patience: float,
    progress: SweepProgress,
    on_finished: OnFinished,
) -> dict[str, float] | None:
    """Train and evaluate points side by side on one activation stream. Returns the seconds of `_account_seconds`.

    patience: seconds to wait for points that another process has locked
    Raises: Stopped if a signal has arrived, after saving a checkpoint of every unfinished point.
    """
    began, deadline = time.perf_counter(), time.monotonic() + patience
    if (description := describe_unused_gpu(source.device)) is not None:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
        log.warning("running %s, which is much slower; the installed torch is built for %s", description, build)
    runs: list[PointRun] = []
    saver = Saver(source.device)
    with ExitStack() as closing:
        if point_state.this_job() is None:
            closing.enter_context(signals.deferring_interrupts())
        display = progress.add_point("activations")
        closing.callback(display.close)
        stream = source.stream(points[0].config, progress_callback(display))
        closing.callback(stream.close)
        try:
            for point in points:
                with _isolated(point, on_finished):
                    run = PointRun(point, source.d_in, source.device, stream, saver, deadline, progress)
                    closing.callback(run.close)
                    runs.append(run)
                    if run.trainer.finished:  # an earlier process was stopped before the evaluation
                        _finish(run, source, on_finished)
            _train_side_by_side(runs, stream, source, on_finished)
        except signals.Stopped as stop:
            _save_all(runs, str(stop))
            raise
    return _account_seconds(points, runs, stream, time.perf_counter() - began)


def _train_side_by_side(
    runs: Sequence[PointRun], stream: ActivationChunks, source: ActivationSource, on_finished: OnFinished
) -> None:
    """Train all points on each chunk of activations in turn, and evaluate each point after its last step."""
    by_trainer = {run.trainer: run for run in runs}
    hooks = {trainer: run.config.model.hook for trainer, run in by_trainer.items()}
    turns = train(list(by_trainer), stream, stream.read_ahead, hooks)
    while (turn := _next_turn(turns, runs)) is not None:
        trainer, steps = turn
        run = by_trainer[trainer]
        with _isolated(run.point, on_finished, run):
            run.train(steps)
            if trainer.finished:
                _finish(run, source, on_finished)


def _next_turn(
    turns: Iterator[tuple[Trainer, Iterator[Step]]], runs: Sequence[PointRun]
) -> tuple[Trainer, Iterator[Step]] | None:
    """Return the next trainer with an iterator of its steps, for which a chunk may have to be made; None at the end.

    An error of the text or the language model, or Ctrl-C, is raised after saving a checkpoint of every unfinished
    point: no point is in the middle of a step here.
    """
    try:
        return next(turns, None)
    except (Exception, KeyboardInterrupt) as error:
        _save_all(runs, describe_error(error) if isinstance(error, Exception) else signals.CTRL_C)
        raise


def _finish(run: PointRun, source: ActivationSource, on_finished: OnFinished) -> None:
    """Evaluate a trained point, write the results and call `on_finished`.

    Raises: Stopped if a signal has asked the process to stop; in this case nothing is evaluated.
    """
    signals.raise_if_stopped()
    source = source.at(run.config.model.hook)
    run.finish(source.model, source.held_out(run.config.evaluation.tokens))
    on_finished(run.point, None)


def _save_all(runs: Sequence[PointRun], reason: str) -> None:
    """Save a checkpoint of every unfinished point, then mark the W&B runs as preempted.

    W&B comes last because a request to the server may take long. A point that cannot be saved is logged.
    reason: the text for the points' logs and states
    """
    unfinished = [run for run in runs if not run.trainer.stopped]
    for run in unfinished:
        try:
            run.stop(reason)
        except Exception as error:  # the previous checkpoint is still there
            logs.log_failure(logs.point_log(run.point.name), run.point.name, error)
    for run in unfinished:
        run.mark_preempted()


def _account_seconds(
    points: Sequence[Point], runs: Sequence[PointRun], stream: ActivationChunks, total: float
) -> dict[str, float] | None:
    """Log and return the seconds of a pack, with the keys of calibration.json.

    "model": activations; "steps": training steps; "point": evaluation; "pack": the rest of `total`. Returns None if
    this process did not take all steps or read activations from the cache: the times would be too short.
    total: seconds of the whole pack
    """
    stepping = sum(run.seconds for run in runs)
    evaluation = sum(run.evaluation_seconds for run in runs)
    log.info(
        "ran %s in %.1f s: %.1f s for the activations (%.1f s of them waiting for tokens), %.1f s for the training "
        "steps, %.1f s for the evaluation",
        *(pluralize(len(points), "point"), total, stream.seconds, stream.token_seconds, stepping, evaluation),
    )
    if stream.cache is not None:
        counts = (stream.cache.misses, stream.cache.hits)
        log.info("computed %d chunks of activations and read %d chunks from activations.cache", *counts)
    is_complete = len(runs) == len(points) and all(run.has_taken_every_step for run in runs)
    if not is_complete or (stream.cache is not None and stream.cache.hits):
        return None
    rest = total - stream.seconds - stepping - evaluation
    return {"model": stream.seconds, "steps": stepping, "point": evaluation, "pack": rest}


@contextmanager
def _isolated(point: Point, on_finished: OnFinished, run: PointRun | None = None) -> Iterator[None]:
    """Record an error in this context as a failure of one point, so that the other points of the pack continue.

    run: the point's run, which is closed after an error; None: the point has not started
    Raises: BrokenTextError, because all points need the text. Stopped if a signal has asked the process to stop. The
    signal reaches all processes of a job, so the error may come from a helper process (such as W&B's) that ended first,
    and is no failure of the point.
    """
    try:
        yield
    except FinishedElsewhere:
        on_finished(point, None)
    except BrokenTextError:
        raise
    except Exception as error:
        signals.raise_if_stopped()
        error = find_lost(point.folder) or error  # the cause of any other error in that folder
        logs.log_failure(logs.point_log(point.name), point.name, error)
        if run is not None:
            run.close()
        on_finished(point, error)
