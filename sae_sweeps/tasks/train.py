"""Task `train`: trains and evaluates the points of a pack side by side."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from sae_sweeps.activations.facts import read_facts
from sae_sweeps.activations.source import Chunks, Source, load_source
from sae_sweeps.activations.synthetic import SyntheticSource
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.descriptors import count_free
from sae_sweeps.runtime.devices import choose_device, describe_unused_gpu, device_name, require_precision
from sae_sweeps.runtime.memory import free_bytes
from sae_sweeps.runtime.progress import SweepProgress, progress_callback
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.calibration import record_run
from sae_sweeps.sweep.halving import list_ended
from sae_sweeps.sweep.packs import Limits, split_by_files, split_to_fit
from sae_sweeps.sweep.point import OnFinished
from sae_sweeps.tasks.pack import Pack, Waiting, isolated

log = logging.getLogger(__name__)


def run(points: Sequence[Point], limits: Limits, progress: SweepProgress, on_finished: OnFinished) -> None:
    """Train and evaluate the SAEs of points that share an activation stream, and write results to the points' folders.

    A point that has results, or was pruned, is skipped. An error in one point ends only this point.

    progress: the display to which each point adds a line
    on_finished: called once per point, with the point and the error with which it failed (None: the point is done)
    Raises: ConfigError if the language model, which all points need, cannot be loaded.
    """
    ended = {point.folder for point in list_ended(points)}
    with ExitStack() as log_files:
        unfinished = []
        for point in points:
            if point.folder in ended or point_state.is_done(point.folder):
                what = "was pruned" if point.folder in ended else "is already done"
                log.info("%s: the point %s and is skipped", point.name, what)
                on_finished(point, None)
                continue
            with isolated(point, on_finished):
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
    """Load the source of activations, split the points into parts that fit in memory, and train part after part."""
    config, began = points[0].config, time.perf_counter()
    source = load_source(config, choose_device(config.device))
    trainable = []
    for point in points:
        signals.raise_if_stopped()
        with isolated(point, on_finished):
            require_precision(point.config.training.precision, source.device)
            source.at(point.config.model.hook).held_out(point.config.evaluation.tokens)
            trainable.append(point)
    if not trainable:
        return
    if isinstance(source, SyntheticSource):
        source.save(trainable[0].folder.parent)
    memory, limited_by = limits.memory, "hydra.launcher.max_memory"
    if memory is None:
        memory, limited_by = 0.9 * free_bytes(source.device), "free memory"
    openable = split_by_files(trainable, count_free())
    facts = read_facts(config)
    parts = [part for pack in openable for part in split_to_fit(pack, facts, source.device.type, memory, limited_by)]
    loading = time.perf_counter() - began  # seconds to load the model and the held-out data, added to the first part
    waiting = Waiting(parts, facts, source.device.type, memory)
    while part := waiting.take():
        seconds = _train_pack(part, waiting, source, limits.patience, progress, on_finished)
        if seconds is not None:
            seconds["pack"] += loading
            is_local = point_state.this_job() is None
            record_run(part, facts, device_name(source.device), seconds, is_local=is_local)
        loading = 0.0


def _train_pack(
    points: Sequence[Point],
    waiting: Waiting,
    source: Source,
    patience: float,
    progress: SweepProgress,
    on_finished: OnFinished,
) -> dict[str, float] | None:
    """Train and evaluate points side by side on one activation stream. Returns the seconds of `_account_seconds`.

    waiting: points that begin once others have been pruned
    patience: seconds to wait for points that another process has locked
    Raises: Stopped if a signal has arrived, after saving a checkpoint of every unfinished point.
    """
    began = time.perf_counter()
    if (description := describe_unused_gpu(source.device)) is not None:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
        log.warning("running %s, which is much slower; the installed torch is built for %s", description, build)
    with ExitStack() as closing:
        if point_state.this_job() is None:
            closing.enter_context(signals.deferring_interrupts())
        display = progress.add_point("activations")
        closing.callback(display.close)
        stream = source.stream(points[0].config, progress_callback(display))
        closing.callback(stream.close)
        pack = Pack(source, stream, patience, progress, on_finished, waiting)
        closing.callback(pack.close)
        try:
            pack.open(points)
            pack.train()
        except signals.Stopped as stop:
            pack.save_all(str(stop))
            raise
    return _account_seconds(points, pack, stream, time.perf_counter() - began)


def _account_seconds(points: Sequence[Point], pack: Pack, stream: Chunks, total: float) -> dict[str, float] | None:
    """Log and return the seconds of a pack, with the keys of calibration.json.

    "model": activations; "steps": training steps; "point": evaluation; "pack": the rest of `total`. Returns None if
    this process did not take all steps or read activations from the cache: the times would be too short.
    total: seconds of the whole pack
    """
    stepping, evaluation = pack.steps_seconds, pack.evaluation_seconds
    log.info(
        "ran %s in %.1f s: %.1f s for the activations (%.1f s of them waiting for tokens), %.1f s for the training "
        "steps, %.1f s for the evaluation",
        *(pluralize(len(points), "point"), total, stream.seconds, stream.token_seconds, stepping, evaluation),
    )
    if stream.cache is not None:
        counts = (stream.cache.misses, stream.cache.hits)
        log.info("computed %d chunks of activations and read %d chunks from activations.cache", *counts)
    if not pack.has_taken_every_step(len(points)) or (stream.cache is not None and stream.cache.hits):
        return None
    rest = total - stream.seconds - stepping - evaluation
    return {"model": stream.seconds, "steps": stepping, "point": evaluation, "pack": rest}
