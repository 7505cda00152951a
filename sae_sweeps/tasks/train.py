"""Task `train`: the points of a pack, side by side, from their configurations to their results."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.activations.source import ActivationSource, load_source
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.devices import choose_device, describe_unused_gpu, device_name, require_precision
from sae_sweeps.runtime.memory import free_bytes
from sae_sweeps.runtime.progress import point_display, progress_callback
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.calibration import record_run
from sae_sweeps.sweep.packs import Limits, split_to_fit
from sae_sweeps.sweep.point import OnFinished
from sae_sweeps.tasks.point import FinishedElsewhere, PointRun
from sae_sweeps.training.trainer import Trainer, train

log = logging.getLogger(__name__)


def run(points: Sequence[Point], limits: Limits, on_finished: OnFinished) -> None:
    """Train and evaluate the SAEs of points that share an activation stream, in their folders.

    `on_finished` is called with each point when it is done, or with why it failed; a failure ends that point alone. A
    point that has results is left as it is. Raises what makes all of them impossible: ConfigError, if the model cannot
    be loaded.
    """
    with ExitStack() as files:
        waiting = []
        for point in points:
            if point_state.is_done(point.folder):
                log.info("%s: finished before, left as it is", point.name)
                on_finished(point, None)
                continue
            with _alone(point, on_finished):
                files.enter_context(logs.log_file(point.folder))
                waiting.append(point)
        if not waiting:
            return
        try:
            _run(waiting, limits, on_finished)
        except Exception as error:
            logs.log_failure(log, "the pack", error)
            raise


def _run(points: Sequence[Point], limits: Limits, on_finished: OnFinished) -> None:
    config, began = points[0].config, time.perf_counter()
    inputs = load_source(config, choose_device(config.device))
    measured = []
    for point in points:
        signals.raise_if_stopped()
        with _alone(point, on_finished):
            require_precision(point.config.training.precision, inputs.device)
            inputs.held_out(point.config.evaluation.tokens)
            measured.append(point)
    if measured:
        if limits.memory is None:
            packs = split_to_fit(measured, inputs.d_in, 0.9 * free_bytes(inputs.device))
        else:
            packs = split_to_fit(measured, inputs.d_in, limits.memory, "are allowed (hydra.launcher.max_memory)")
        beginning = time.perf_counter() - began
        for pack in packs:
            seconds = _train_pack(pack, inputs, limits.patience, on_finished)
            if seconds is not None:
                seconds["pack"] += beginning
                here, facts = point_state.this_job() is None, read_model_info(config.model.name)
                record_run(pack, facts, device_name(inputs.device), seconds, here=here)
            beginning = 0.0


def _train_pack(
    points: Sequence[Point], inputs: ActivationSource, patience: float, on_finished: OnFinished
) -> dict[str, float] | None:
    """Returns the seconds that its parts took (calibration.py), None if a point was not trained from end to end."""
    began, deadline = time.perf_counter(), time.monotonic() + patience
    if (said := describe_unused_gpu(inputs.device)) is not None:
        log.warning("running %s; this torch is built for %s", said, torch.version.cuda or "no CUDA at all")
    workers: dict[Trainer, PointRun] = {}
    with ExitStack() as closing:
        display = point_display("activations")
        closing.callback(display.close)
        stream = inputs.stream(points[0].config, progress_callback(display))
        try:
            for point in points:
                with _alone(point, on_finished):
                    worker = PointRun(point, inputs.d_in, inputs.device, deadline)
                    closing.callback(worker.close)
                    workers[worker.trainer] = worker
                    if worker.trainer.finished:  # and was stopped before it was evaluated
                        _finish(worker, inputs, on_finished)
            for trainer, steps in train(list(workers), stream):
                worker = workers[trainer]
                with _alone(worker.point, on_finished, worker):
                    worker.train(steps)
                    if trainer.finished:
                        _finish(worker, inputs, on_finished)
        except signals.Stopped as stop:
            begun = [worker for worker in workers.values() if not worker.trainer.stopped]
            for worker in begun:  # all are saved before W&B, which may take its time, hears of it
                try:
                    worker.stop(str(stop))
                except Exception as error:  # the state from before is still there
                    logs.log_failure(logs.point_log(worker.point.name), worker.point.name, error)
            for worker in begun:
                worker.preempted()
            raise
    total = time.perf_counter() - began
    stepping = sum(worker.seconds for worker in workers.values())
    evaluation = sum(worker.evaluation_seconds for worker in workers.values())
    log.info(
        "%s in %.1f s: %.1f s for the activations, %.1f s for the points' own steps, %.1f s for the evaluation",
        *(pluralize(len(points), "point"), total, stream.seconds, stepping, evaluation),
    )
    if stream.cache is not None:
        counts = (stream.cache.misses, stream.cache.hits)
        log.info("%d chunks of activations computed, %d found in activations.cache", *counts)
    whole = len(workers) == len(points) and all(worker.from_end_to_end for worker in workers.values())
    if not whole or (stream.cache is not None and stream.cache.hits):
        return None
    rest = total - stream.seconds - stepping - evaluation
    return {"model": stream.seconds, "steps": stepping, "point": evaluation, "pack": rest}


def _finish(worker: PointRun, inputs: ActivationSource, on_finished: OnFinished) -> None:
    signals.raise_if_stopped()
    worker.finish(inputs.model, inputs.held_out(worker.config.evaluation.tokens))
    on_finished(worker.point, None)


@contextmanager
def _alone(point: Point, on_finished: OnFinished, worker: PointRun | None = None) -> Iterator[None]:
    """What fails in here is the failure of one point, unless this process is being stopped: a signal reaches all
    processes of a job, and what then fails, fails for want of another one, W&B's say."""
    try:
        yield
    except FinishedElsewhere:
        on_finished(point, None)
    except Exception as error:
        signals.raise_if_stopped()
        logs.log_failure(logs.point_log(point.name), point.name, error)
        if worker is not None:
            worker.close()
        on_finished(point, error)
