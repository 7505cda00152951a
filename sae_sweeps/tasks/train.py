"""Task `train`: one point of a sweep, from its configuration to its results."""

import json
import logging
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sae_sweeps import checkpoints
from sae_sweeps.config import Config, DatasetConfig, ModelConfig, sparsity_coefficient
from sae_sweeps.display import current
from sae_sweeps.errors import ConfigError
from sae_sweeps.evaluation import HeldOut, evaluate, held_out
from sae_sweeps.files import read_json, write_json, write_text
from sae_sweeps.formats.saelens import write_sae
from sae_sweeps.language.activations import ActivationStream
from sae_sweeps.language.model import LanguageModel
from sae_sweeps.language.tokens import TokenSource
from sae_sweeps.provenance import provenance
from sae_sweeps.saes import SAE, BatchTopKSAE, JumpReLUSAE, TopKSAE
from sae_sweeps.saes.base import Step
from sae_sweeps.sweep import RESULTS
from sae_sweeps.tracking import Run, start_run
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
    display = current().point(folder.name)
    try:
        _run(config, folder, display)
    finally:
        display.close()


def _run(config: Config, folder: Path, display: Any) -> None:
    device = choose_device(config.device)
    display.stage("loading the model and the text")
    model, tokens, data = load_inputs(_Key(config.model), _Key(config.dataset), config.evaluation.tokens, device)
    sae = new_sae(config, data.acts_AD.shape[1]).to(device)
    trainer = Trainer(sae, config.training)
    steps = config.training.steps
    state = checkpoints.load_newest(folder / "checkpoint")
    if state is not None:
        trainer.load_state(state)
        log.info("%s: goes on at step %d of %d", folder.name, trainer.steps_done, steps)
    else:
        log.info("%s: %d steps of %d activations on %s", folder.name, steps, config.training.batch_size, device)
    metrics_file = folder / "metrics.jsonl"
    _drop_metrics_after(metrics_file, trainer.steps_done)
    tracker = start_run(
        config.tracking, folder, group=config.name, job_type="train", config={**asdict(config), **provenance()}
    )
    try:
        _train(config, folder, trainer, model, tokens, metrics_file, tracker, display)
        display.stage("evaluating")
        metrics = evaluate(sae, model, data)
        log.info("%s: %s", folder.name, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        write_sae(folder / "sae", sae, sae_metadata(config))
        seconds = sum(line["seconds"] for line in _read_metrics(metrics_file))
        write_json(
            folder / RESULTS,
            {
                "point": {
                    "architecture": sae.architecture,
                    "dict_size": sae.dict_size,
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
                    "tokens_per_second": trainer.tokens_done / seconds,
                },
                "config": asdict(config),
                "provenance": provenance(),
            },
        )
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.log({"tokens": trainer.tokens_done, **{f"eval/{name}": value for name, value in metrics.items()}})
    tracker.finish({f"eval/{name}": value for name, value in metrics.items()})


def _train(
    config: Config,
    folder: Path,
    trainer: Trainer,
    model: LanguageModel,
    tokens: TokenSource,
    metrics_file: Path,
    tracker: Run,
    display: Any,
) -> None:
    training = config.training
    stream = ActivationStream(
        model, tokens, batch_size=training.batch_size, chunk_batches=training.chunk_batches, seed=config.dataset.seed
    )
    since = time.perf_counter()
    for step in train(trainer, stream):
        done = trainer.steps_done
        display.progress(trainer.tokens_done, training.steps * training.batch_size, step.loss.item(), step.l0.item())
        last = done == training.steps
        if done % training.log_every == 0 or last or done % training.checkpoint_every == 0:
            line = training_metrics(trainer, step)
            now = time.perf_counter()
            line["seconds"], since = now - since, now
            with open(metrics_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            tracker.log({name if name == "tokens" else f"train/{name}": value for name, value in line.items()})
        if done % training.checkpoint_every == 0 or last:
            checkpoints.save(folder / "checkpoint", done, trainer.state())


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
        "lr": trainer.lr(),
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
        "dataset_path": config.dataset.name or config.dataset.globs,
    }


def choose_device(setting: str) -> torch.device:
    """`auto` takes a CUDA device if there is one, else the CPU. Raises: ConfigError if the device is not there."""
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=setting)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("device", setting, f"cannot be used ({reason})", "device=auto") from None
    return torch.device(setting)


class _Key:
    """A configuration as a key of `load_inputs`: equal if all its values are."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._text = json.dumps(asdict(config), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=1)
def load_inputs(
    model_key: _Key, dataset_key: _Key, held_out_tokens: int, device: torch.device
) -> tuple[LanguageModel, TokenSource, HeldOut]:
    """The model, the text and the held-out measurements, which the points of a sweep mostly share."""
    model_config: ModelConfig = model_key.config
    dataset: DatasetConfig = dataset_key.config
    model = LanguageModel(model_config, device)
    if dataset.prepend_bos and model.bos is None:
        raise ConfigError(
            "dataset.prepend_bos", True, "the model's tokenizer has no BOS token", "dataset.prepend_bos=false"
        )
    tokens = TokenSource(dataset, model.encode, model.bos if dataset.prepend_bos else None, model.eos)
    first_position = 1 if dataset.prepend_bos else 0
    tokens_NS = tokens.held_out(-(-held_out_tokens // (dataset.seq_len - first_position)))
    return model, tokens, held_out(model, tokens_NS, first_position)


def _read_metrics(file: Path) -> list[dict[str, float]]:
    """The whole lines of metrics.jsonl; a last line cut short by a crash is left out."""
    lines = []
    if file.exists():
        for text in file.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


def _drop_metrics_after(file: Path, step: int) -> None:
    """Forget what was logged behind the step that training goes on from."""
    if file.exists():
        kept = [line for line in _read_metrics(file) if line["step"] <= step]
        write_text(file, "".join(json.dumps(line) + "\n" for line in kept))
