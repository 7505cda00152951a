"""The points of a pack that train side by side in this process, and those that wait for memory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.activations.source import Chunks, Source
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.descriptors import count_free
from sae_sweeps.runtime.errors import BrokenTextError, describe_error
from sae_sweeps.runtime.held import find_lost
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.saes import Step
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.memory import pack_bytes
from sae_sweeps.sweep.packs import TRACKED
from sae_sweeps.sweep.point import OnFinished
from sae_sweeps.tasks.halving import Halving
from sae_sweeps.tasks.point import FinishedElsewhere, PointRun
from sae_sweeps.training.saving import Saver
from sae_sweeps.training.trainer import Trainer, train


class Waiting:
    """Points that wait until there is memory for them, in parts that fit in memory at once."""

    def __init__(self, parts: Sequence[Sequence[Point]], facts: ModelInfo, device: str, memory: float) -> None:
        """Begin with all parts. `facts`: sizes of the model; `device`: its type; `memory`: bytes for a part"""
        self._parts = [list(part) for part in parts]
        self._facts, self._device, self._memory = facts, device, memory

    def take(self) -> list[Point]:
        """Return the next part, which no longer waits; an empty list if there is none."""
        return self._parts.pop(0) if self._parts else []

    def take_beside(self, training: Sequence[Point]) -> list[Point]:
        """Return the next points that fit in memory beside those in training. They no longer wait."""
        taken: list[Point] = []
        while self._parts and self._fits([*training, *taken, self._parts[0][0]], len(taken) + 1):
            taken.append(self._parts[0].pop(0))
            self._parts = [part for part in self._parts if part]
        return taken

    def _fits(self, points: Sequence[Point], more: int) -> bool:
        """Return whether points fit in memory, of which so many more would be open."""
        return pack_bytes(points, self._facts, self._device) <= self._memory and TRACKED * more <= count_free()


class Pack:
    """Points in training on one activation stream. An error in one of them ends only this point."""

    def __init__(
        self,
        source: Source,
        stream: Chunks,
        patience: float,
        progress: SweepProgress,
        on_finished: OnFinished,
        waiting: Waiting,
    ) -> None:
        """Begin without points.

        patience: seconds to wait for a point that another process has locked
        waiting: points to train as well once pruned points have left memory for them
        """
        self._source, self._stream, self._patience = source, stream, patience
        self._progress, self._on_finished, self._waiting = progress, on_finished, waiting
        self._saver, self._halving = Saver(source.device), Halving(source)
        self._runs: list[PointRun] = []
        self._trainers: list[Trainer] = []
        self._hooks: dict[Trainer, str] = {}
        self.steps_seconds = self.evaluation_seconds = 0.0  # of all points, once `close` was called

    def open(self, points: Sequence[Point]) -> None:
        """Begin with these points, from their newest checkpoints. One that was stopped before its evaluation has it.

        Raises: Stopped if a signal arrives.
        """
        deadline = time.monotonic() + self._patience
        for point in points:
            with isolated(point, self._on_finished):
                source = self._source
                run = PointRun(point, source.d_in, source.device, self._stream, self._saver, deadline, self._progress)
                self._runs.append(run)
                self._trainers.append(run.trainer)
                self._hooks[run.trainer] = run.config.model.hook
                if run.trainer.finished:
                    self._finish(run)
                else:
                    self._halving.pause(run)
        self._settle()

    def train(self) -> None:
        """Train all points on each chunk of activations in turn, and evaluate each point after its last step.

        Raises: Stopped if a signal has arrived.
        """
        turns = train(self._trainers, self._stream, self._stream.read_ahead, self._hooks)
        while (turn := self._next_turn(turns)) is not None:
            trainer, steps = turn
            run = next(run for run in self._runs if run.trainer is trainer)
            with isolated(run.point, self._on_finished, run):
                run.train(steps)
                if trainer.finished:
                    self._finish(run)
                else:
                    self._halving.pause(run)
            self._settle()

    def _next_turn(self, turns: Iterator[tuple[Trainer, Iterator[Step]]]) -> tuple[Trainer, Iterator[Step]] | None:
        """Return the next trainer and an iterator of its steps, for which a chunk may have to be made; None at the end.

        An error of the text or the language model, or Ctrl-C, is raised after saving a checkpoint of every unfinished
        point: no point is in the middle of a step here.
        """
        try:
            return next(turns, None)
        except (Exception, KeyboardInterrupt) as error:
            self.save_all(describe_error(error) if isinstance(error, Exception) else signals.CTRL_C)
            raise

    def _finish(self, run: PointRun) -> None:
        """Evaluate a trained point, write the results and call `on_finished`.

        Raises: Stopped if a signal has asked the process to stop; in this case nothing is evaluated.
        """
        signals.raise_if_stopped()
        source = self._source.at(run.config.model.hook)
        run.finish(source.model, source.held_out(run.config.evaluation.tokens))
        self._on_finished(run.point, None)

    def _settle(self) -> None:
        """Prune the points that halving ends now, and begin with waiting points in the memory that they leave."""
        pruned = self._halving.settle(self._runs)
        for run, reason in pruned:
            with isolated(run.point, self._on_finished, run):
                run.prune(reason)
                self._on_finished(run.point, None)
            self._drop(run)
        if pruned and (points := self._waiting.take_beside([run.point for run in self._runs if run.is_open])):
            self.open(points)

    def _drop(self, run: PointRun) -> None:
        """Remove a point that has ended, which frees its memory."""
        self.steps_seconds += run.seconds
        self.evaluation_seconds += run.evaluation_seconds
        self._runs.remove(run)
        self._trainers.remove(run.trainer)
        del self._hooks[run.trainer]

    def save_all(self, reason: str) -> None:
        """Save a checkpoint of every unfinished point, then mark the W&B runs as preempted.

        W&B comes last because a request to the server may take long. A point that cannot be saved is logged.
        reason: the text for the points' logs and states
        """
        unfinished = [run for run in self._runs if run.is_open]
        for run in unfinished:
            try:
                run.stop(reason)
            except Exception as error:  # the previous checkpoint is still there
                logs.log_failure(logs.point_log(run.point.name), run.point.name, error)
        for run in unfinished:
            run.mark_preempted()

    def has_taken_every_step(self, count: int) -> bool:
        """Return whether `count` points have begun and ended here, with all of their steps."""
        return len(self._runs) == count and all(run.has_taken_every_step for run in self._runs)

    def close(self) -> None:
        """Close all points, and sum their seconds."""
        with ExitStack() as closing:  # which closes all, whatever one of them raises
            for run in self._runs:
                closing.callback(run.close)
        self.steps_seconds += sum(run.seconds for run in self._runs)
        self.evaluation_seconds += sum(run.evaluation_seconds for run in self._runs)


@contextmanager
def isolated(point: Point, on_finished: OnFinished, run: PointRun | None = None) -> Iterator[None]:
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
