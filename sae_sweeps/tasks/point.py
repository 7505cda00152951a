"""Runs one point (one SAE of a sweep) of a pack: log, checkpoints, W&B run, progress and results."""

import functools
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from filelock import FileLock

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.source import Chunks
from sae_sweeps.config import Config
from sae_sweeps.config.saes import PenaltyConfig
from sae_sweeps.config.sparsity import explain_sparsity, resolve_sparsity
from sae_sweeps.evaluation.evaluate import evaluate, evaluate_whole
from sae_sweeps.evaluation.metrics import find_concentration, list_bounds, remark_on_sparsity
from sae_sweeps.evaluation.ratios import describe_metrics, require_numbers
from sae_sweeps.formats import saelens
from sae_sweeps.formats.metadata import sae_metadata
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.background import Background
from sae_sweeps.runtime.devices import describe_unused_gpu, read_clock
from sae_sweeps.runtime.errors import LockedError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import TRAINABLE, Activations, Step, TrainableSAE
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.halving import find_bracket
from sae_sweeps.sweep.unit_sums import write_sums
from sae_sweeps.tasks.results import describe_results
from sae_sweeps.tasks.wandb_run import CURVE, log_results, start_point_run, wandb_metrics
from sae_sweeps.tracking.run import Run
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import CurveFile
from sae_sweeps.training.curve_line import curve_line
from sae_sweeps.training.saving import Saver
from sae_sweeps.training.trainer import Trainer

LEFT_OUT = "left_out"  # in a checkpoint: positions left out of the text so far, because of their token
ADVICE = "The SAE has diverged: lower training.lr, or set sae.normalize_input=true"


class FinishedElsewhere(Exception):  # noqa: N818  not an error
    """Raised when another process has finished the point while this process waited for the lock."""


class PointRun:
    """A point in training, from the start or from the newest intact checkpoint. Call `close` in the end."""

    def __init__(
        self,
        point: Point,
        d_in: int,
        device: torch.device,
        stream: Chunks,
        saver: Saver,
        deadline: float,
        progress: SweepProgress,
    ) -> None:
        """Lock the point, build the SAE, load the newest checkpoint and start the W&B run.

        d_in: width of the activations
        stream: the activations to train on, which count the positions that are left out
        saver: writes the checkpoints of all points of the pack
        deadline: time (of time.monotonic, in seconds) until which to wait for the lock of another process
        progress: the display to which the point adds a line
        Raises: LockedError if another process still has the lock at the deadline; FinishedElsewhere if another process
        has finished the point; Stopped if a signal arrives during the wait.
        """
        self.point, self.config, self._stream, self._saver = point, point.config, stream, saver
        self._writing: Background[None] | None = None  # the latest checkpoint, if a thread writes it
        self.trainer = Trainer(build_sae(self.config, d_in).to(device), self.config.training)
        self._log = logs.point_log(point.name)
        self._lock = FileLock(point.folder / point_state.LOCK)
        self._acquire(deadline)
        if point_state.is_done(point.folder):
            point_state.release(self._lock)
            raise FinishedElsewhere
        self._tracker, self.is_open = Run(), True
        self.evaluation_seconds = 0.0
        self.seconds = 0.0  # time that this process has spent on training steps
        self._logged_seconds = 0.0  # the part of `seconds` that is already in the training curve
        self._display = progress.add_point(point.name)
        try:
            self._begin(device)
        except BaseException:
            self.close()
            raise

    def _acquire(self, deadline: float) -> None:
        """Acquire the point's lock. Raises: LockedError at the deadline, Stopped if a signal arrives."""

        def describe_holder() -> str:
            known = point_state.read_note(self.point.folder)
            return f"another process is training this point ({known.owner if known else 'unknown'})"

        def on_wait(seconds_left: float) -> None:
            message = "%s: %s; waiting up to %d s until that process ends"
            self._log.warning(message, self.point.name, describe_holder(), seconds_left)

        if not point_state.acquire(self._lock, deadline, on_wait):
            raise LockedError(f"{describe_holder()}. Stop that process, or wait until it ends")

    def _begin(self, device: torch.device) -> None:
        """Load the newest checkpoint if there is one, open the file of the training curve, and start the W&B run."""
        config, folder, training = self.config, self.point.folder, self.config.training
        point_state.write_state(folder, point_state.RUNNING, describe_unused_gpu(device))
        state = self._load_checkpoint()
        if isinstance(config.sae, PenaltyConfig):
            self._log.info("%s: %s", self.point.name, explain_sparsity(config))
        if state is None:
            steps = (training.steps, training.batch_size, device)
            self._log.info("%s: training for %d steps of %d activations on %s", self.point.name, *steps)
        else:
            self.trainer.load_state(state)
            self._log.info("%s: resuming at step %d of %d", self.point.name, self.trainer.steps_done, training.steps)
        self._saved_steps = self._first_step = self.trainer.steps_done
        self._display.start(self.trainer.tokens_done)
        self._curve = CurveFile(folder / CURVE, self.trainer.steps_done)
        self._tracker = start_point_run(self.point, self._curve.lines, provenance())

    def _load_checkpoint(self) -> dict[str, torch.Tensor] | None:
        """Return the newest intact checkpoint, or None if there is none that belongs to the point's activations.

        Checkpoints from before `dataset.exclude` existed do not hold LEFT_OUT. They belong to other activations if
        positions are left out of the text that they were trained on, and are removed.
        """
        folder = self.point.folder / "checkpoint"
        state = checkpoints.load_newest(folder, self.point.name, self.trainer.check_state)
        self._left_out = int(state.pop(LEFT_OUT, torch.tensor(-1))) if state is not None else 0
        if state is None or self._left_out >= 0:
            return state
        steps = int(state["steps_done"])
        self._left_out = self._stream.count_left_out(steps * self.config.training.batch_size)
        if self._left_out == 0:
            return state
        self._log.warning(
            "%s: the checkpoint of step %d is from a version that also trained on the %s positions which "
            "dataset.exclude=%s leaves out; training starts again from step 0",
            *(self.point.name, steps, f"{self._left_out:,}", self.config.dataset.exclude),
        )
        shutil.rmtree(folder)
        self._left_out = 0
        return None

    @functools.cached_property
    def bracket(self) -> str:
        """Return a key that is equal for points that halving compares with one another."""
        return find_bracket(self.config)

    @property
    def has_taken_every_step(self) -> bool:
        """Return whether this process has taken all training steps of the point, from the first to the last."""
        return self._first_step == 0 and self.trainer.finished

    def train(self, steps: Iterator[Step]) -> None:
        """Run the training steps of an iterator, and write the training curve and the checkpoints.

        steps: performs one training step per item
        Raises: TrainingError if the loss is not finite; Stopped between two steps if a signal has arrived.
        """
        training, since = self.config.training, time.perf_counter()
        for step in steps:
            done, tokens = self.trainer.steps_done, self.trainer.tokens_done
            self.seconds += time.perf_counter() - since
            self._display.show_step(tokens, training.steps * training.batch_size, step.loss, step.l0)
            is_checkpoint = done % training.checkpoint_every == 0 or self.trainer.finished
            line = None
            if is_checkpoint or done % training.log_every == 0:
                line = {**curve_line(self.trainer, step), "seconds": self.seconds - self._logged_seconds}
                self._logged_seconds = self.seconds
                self._curve.append(line)
            if is_checkpoint:
                self._save()
            signals.raise_if_stopped()
            if line is not None:
                self._tracker.log(wandb_metrics(line))
            since = time.perf_counter()
        self.seconds += read_clock(self.trainer.device) - since  # the last steps of the chunk

    def _save(self) -> None:
        """Write a checkpoint of the trainer, or begin to.

        Raises: LockedError if another process has taken over the point; TrainingError if the state is not finite; the
        error of the checkpoint before, if a thread could not write it.
        """
        self._require_written()
        known = point_state.read_note(self.point.folder)
        if known is not None and known.owner != point_state.Owner.current():
            raise LockedError(f"{known.owner} has taken over this point")
        self.trainer.require_finite()
        self._saved_steps = self.trainer.steps_done
        self._left_out = self._stream.count_left_out(self.trainer.tokens_done)
        state = {**self.trainer.state(), LEFT_OUT: torch.tensor(self._left_out)}
        folder = self.point.folder / "checkpoint"
        self._writing = self._saver.save(folder, self.trainer.steps_done, state, self.point.name)

    def _require_written(self) -> None:
        """Wait until the latest checkpoint is written. Raises: the error that prevented it."""
        if self._writing is not None:
            self._writing.result()

    def stop(self, reason: str) -> None:
        """Write a checkpoint and mark the point as interrupted, so that it can be resumed.

        reason: the text for the log and for the point's state, for example the name of a signal
        """
        if self.trainer.steps_done > self._saved_steps:
            self._save()
        self._require_written()
        message = "%s: %s: stopped at step %d and saved a checkpoint"
        self._log.info(message, self.point.name, reason, self.trainer.steps_done)
        where = f"stopped by {reason} at step {self.trainer.steps_done}"
        point_state.write_state(self.point.folder, point_state.INTERRUPTED, where)

    def mark_preempted(self) -> None:
        """Mark the W&B run as preempted, which means that another process will resume it."""
        self._tracker.preempted()

    def measure(self, model: LanguageModel | None, data: HeldOut | Activations, objective: str) -> float | None:
        """Return a metric of the SAE as it is now, on held-out data. `model`: None if the metric takes none"""
        self._display.show_stage(f"measuring {objective} after {self.trainer.tokens_done:,} activations")
        began = time.perf_counter()
        k = self.config.k if "_at_k" in objective or "_batch" in objective else None
        sae, batch_size = self.trainer.sae, self.config.training.batch_size
        if model is None:
            metrics = evaluate(sae, data, k=k, batch_size=batch_size)
        else:
            assert isinstance(data, HeldOut), "predictions are those of sequences"
            metrics = evaluate(sae, model, data, k=k, batch_size=batch_size)
        self.evaluation_seconds += time.perf_counter() - began
        return metrics.get(objective)

    def prune(self, reason: str) -> None:
        """Write a checkpoint, mark the point as pruned, and close it. `reason`: why, for its log and state"""
        if self.trainer.steps_done > self._saved_steps:
            self._save()
        self._require_written()
        self._log.info("%s: pruned: %s", self.point.name, reason)
        point_state.write_state(self.point.folder, point_state.PRUNED, reason)
        self._tracker.finish({"pruned": reason})
        self.close()

    def finish(self, model: LanguageModel | None, data: HeldOut) -> None:
        """Evaluate the trained SAE on held-out data, write the SAE and the results, and close the point.

        results.json is written after all other files, because it marks the point as done. Only the W&B run ends later.
        """
        config, folder = self.config, self.point.folder
        self._display.show_stage("evaluating")
        began = time.perf_counter()
        sae = self.trainer.sae.for_inference()
        batch_size = config.training.batch_size
        metrics, sparsity, sums = evaluate_whole(sae, model, data, k=config.k, batch_size=batch_size)
        self.evaluation_seconds += time.perf_counter() - began
        self._require_written()
        require_numbers(metrics, ADVICE)
        self._log.info("%s: %s", self.point.name, describe_metrics(metrics))
        if self._left_out:
            message = "%s: left out %s positions of the training text, because of their tokens (dataset.exclude=%s)"
            self._log.info(message, self.point.name, f"{self._left_out:,}", config.dataset.exclude)
        for remark in filter(None, (find_concentration(metrics), remark_on_sparsity(metrics, config.k))):
            self._log.warning("%s: %s", self.point.name, remark)
        saelens.write(folder / "sae", sae, sae_metadata(config))
        intervals = write_sums(folder, sums)
        log_results(self._tracker, self.point, self.trainer.tokens_done, {**metrics, **list_bounds(intervals)})
        seconds = self._curve.total("seconds") if self._curve.is_complete else None
        results = describe_results(config, self.trainer, metrics, seconds, self._left_out)
        point_state.write_results(folder, {**results, "sparsity": sparsity, "intervals": intervals})
        self._tracker.finish()
        if not config.training.keep_states:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Release the point's lock and remove the line from the display. An open W&B run is marked as failed.

        A checkpoint that a thread writes is waited for.
        """
        self.is_open, self.trainer.stopped = False, True
        try:
            if self._writing is not None:
                self._writing.wait()
            self._tracker.finish(failed=True)
        finally:
            self._display.close()
            point_state.release(self._lock)


def build_sae(config: Config, d_in: int) -> TrainableSAE:
    """Build an untrained SAE with the architecture and size in the configuration. `d_in`: width of the activations"""
    options = {name: value for name, value in asdict(config.sae).items() if name != "architecture"}
    if isinstance(config.sae, PenaltyConfig):
        options = {**options, "sparsity_coefficient": None, "target_l0": None, **resolve_sparsity(config)}
    else:
        options["k"] = config.k
    return TRAINABLE[config.sae.architecture](d_in, config.dict_size, seed=config.seed, **options)
