"""Task `train`: one point of a sweep, from its configuration to its results."""

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_sweeps import checkpoints
from sae_sweeps.config import Config, sparsity_coefficient
from sae_sweeps.display import PointDisplay, point_display
from sae_sweeps.errors import TrainingError
from sae_sweeps.evaluation import evaluate
from sae_sweeps.files import read_json, write_json
from sae_sweeps.formats.saelens import write_sae
from sae_sweeps.language.activations import ActivationStream
from sae_sweeps.metrics import MetricsFile
from sae_sweeps.provenance import provenance
from sae_sweeps.saes import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE
from sae_sweeps.saes.base import Step
from sae_sweeps.sweep import RESULTS
from sae_sweeps.tasks.inputs import choose_device, load_inputs
from sae_sweeps.tracking import start_run
from sae_sweeps.training import Trainer, train

log = logging.getLogger(__name__)

ARCHITECTURES: dict[str, type[SAE]] = {"batchtopk": BatchTopKSAE, "topk": TopKSAE, "jumprelu": JumpReLUSAE}


def run(config: Config, folder: Path) -> None:
    """Train and evaluate the SAE that `config` describes, in `folder`.

    A point that has results is left as it is; one that was interrupted goes on from its newest intact checkpoint.
    """
    if read_json(folder / RESULTS) is not None:
        log.info("%s: finished before, left as it is", folder.name)
        return
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError("another process is training this point; let it end, or stop it") from None
    display = point_display(folder.name)
    try:
        _run(config, folder, display)
    finally:
        display.close()
        lock.release()


def _run(config: Config, folder: Path, display: PointDisplay) -> None:
    device = choose_device(config.device)
    display.stage("loading the model and the text")
    model, tokens, data = load_inputs(config, device)
    training = config.training
    stream = ActivationStream(
        model, tokens, batch_size=training.batch_size, chunk_batches=training.chunk_batches, seed=config.dataset.seed
    )
    trainer = Trainer(new_sae(config, data.acts_AD.shape[1]).to(device), training)
    state = checkpoints.load_newest(folder / "checkpoint")
    if state is None:
        log.info("%s: %d steps of %d activations on %s", folder.name, training.steps, training.batch_size, device)
    else:
        trainer.load_state(state)
        log.info("%s: goes on at step %d of %d", folder.name, trainer.steps_done, training.steps)
    curve = MetricsFile(folder / "metrics.jsonl", trainer.steps_done)
    run_config = {**asdict(config), **provenance()}
    history = [tracked(line) for line in curve.lines]
    tracker = start_run(
        config.tracking, folder, group=config.name, job_type="train", config=run_config, history=history
    )
    try:
        since = time.perf_counter()
        for step in train(trainer, stream):
            done = trainer.steps_done
            display.progress(trainer.tokens_done, training.steps * training.batch_size, step.loss, step.l0)
            saves = done % training.checkpoint_every == 0 or done == training.steps
            if saves or done % training.log_every == 0:
                now = time.perf_counter()
                line = {**training_metrics(trainer, step), "seconds": now - since}
                since = now
                curve.append(line)
                tracker.log(tracked(line))
            if saves:
                checkpoints.save(folder / "checkpoint", done, trainer.state())
        display.stage("evaluating")
        metrics = evaluate(trainer.sae, model, data)
        log.info("%s: %s", folder.name, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        write_sae(folder / "sae", trainer.sae, sae_metadata(config))
        final = {f"eval/{name}": value for name, value in metrics.items()}
        tracker.log({"tokens": trainer.tokens_done, **final})
        tracker.finish(final)
    except BaseException:
        tracker.finish(failed=True)
        raise
    # last of all: a point that has results is done
    write_json(folder / RESULTS, results(config, trainer, metrics, curve.total("seconds")))


def tracked(line: dict[str, float]) -> dict[str, float]:
    """A line of the training curve under the names that W&B shows."""
    return {name if name == "tokens" else f"train/{name}": value for name, value in line.items()}


def results(config: Config, trainer: Trainer, metrics: dict[str, float], seconds: float) -> dict[str, Any]:
    """What results.json holds; `seconds` is the time spent in training, over all runs of the point."""
    return {
        "point": {
            "architecture": trainer.sae.architecture,
            "dict_size": config.dict_size,
            "k": config.k,
            "seed": config.seed,
            "model": config.model.name,
            "hook": config.model.hook,
        },
        "metrics": metrics,
        "training": {
            "tokens": trainer.tokens_done,
            "steps": trainer.steps_done,
            "seconds": seconds,
            "tokens_per_second": trainer.tokens_done / seconds if seconds > 0 else None,
        },
        "config": asdict(config),
        "provenance": provenance(),
    }


def training_metrics(trainer: Trainer, step: Step) -> dict[str, float]:
    """One line of metrics.jsonl: what the latest step saw, on its own batch."""
    metrics = {
        "step": trainer.steps_done,
        "tokens": trainer.tokens_done,
        "loss": step.loss.item(),
        "mse": step.mse.item(),
        "aux_loss": step.aux_loss.item(),
        "l0": step.l0.item(),
        "dead_fraction": trainer.dead_F.float().mean().item(),
        "lr": trainer.lr(trainer.steps_done),
    }
    threshold = getattr(trainer.sae, "threshold", None)
    if threshold is not None:
        metrics["threshold_mean"] = threshold.mean().item()
    return metrics


def new_sae(config: Config, d_in: int) -> SAE:
    """An untrained SAE of the configured architecture."""
    options = {name: value for name, value in asdict(config.sae).items() if name != "architecture"}
    if config.sae.architecture == "jumprelu":
        options["sparsity_coefficient"], source = sparsity_coefficient(config)
        log.info("%s", source)
    else:
        options["k"] = config.k
    return ARCHITECTURES[config.sae.architecture](d_in, config.dict_size, seed=config.seed, **options)


def sae_metadata(config: Config) -> dict[str, Any]:
    """What SAELens wants to know of an SAE's origin."""
    return {
        "model_name": config.model.name,
        "hook_name": config.model.hook,
        "context_size": config.dataset.seq_len,
        "prepend_bos": config.dataset.prepend_bos,
        "dataset_path": config.dataset.name or ", ".join(config.dataset.globs),
    }
