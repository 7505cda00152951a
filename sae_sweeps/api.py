"""The library for notebooks and scripts: activation streams from a few settings, and SAEs trained on them.

The functions call the same code as the command (activations/source.py, training/trainer.py), so equal settings give
equal SAEs, to the byte. docs/library.md walks through it.
"""

# A activations in a chunk, D model width

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.activations.texts import choose_text
from sae_sweeps.config import ActivationsConfig, Config, DatasetConfig, ModelConfig, TrackingConfig, TrainingConfig
from sae_sweeps.config.presets import build_config, build_settings, choose_model
from sae_sweeps.formats import saelens
from sae_sweeps.formats.metadata import text_metadata
from sae_sweeps.runtime.devices import choose_device, require_precision, resolve_dtype
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.inputs import check_names, require_type, require_whole
from sae_sweeps.runtime.paths import expand_folder
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.saes import SAE, InferenceSAE, TrainableSAE
from sae_sweeps.sweep.preflight import INPUT_CHECKS, Preflight
from sae_sweeps.training.curve_line import curve_line
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Step, Trainer, train

CHUNK = 32_768  # activations that are shuffled together, by default

MAKE = "make a BatchTopKSAE, TopKSAE, JumpReLUSAE, ..."

Curve: TypeAlias = list[dict[str, float]]
OnLine: TypeAlias = Callable[[TrainableSAE, dict[str, float]], None]


class ActivationStream:
    """A language model's activations at one hook: shuffled chunks of training text, and held-out text to measure on.

    Chunk i depends on the settings and i alone, so any number of SAEs can train on a stream, any number of times.
    Activations of BOS and other special tokens are left out (`DatasetConfig.exclude`). `ActivationStream.from_model`
    makes a stream from a few settings; the constructor takes a whole configuration, as the command composes it.

    model: the language model, with its `tokenizer`, `encode` and `cross_entropy`
    d_in: the width of an activation
    chunk_size: activations in a chunk
    config: the configuration that the stream was made from
    """

    def __init__(self, config: Config) -> None:
        """Check the settings, then load the language model. Raises: ConfigError, before anything is loaded where
        possible, if the model, the hook, the text or the device cannot be used."""
        for error in Preflight().find_problems(config, INPUT_CHECKS):
            raise error
        self.config = config
        self._source = ActivationSource(config, choose_device(config.device))
        self._chunks = self._source.stream(config)
        self.chunk_size = self._chunks.chunk_size
        self._texts: TemporaryDirectory[str] | None = None  # holds the documents of `texts`; deleted with the stream

    @classmethod
    @check_names
    def from_model(
        cls,
        model: str | Path | ModelConfig,
        hook: str | None = None,
        *,
        texts: Sequence[str] | None = None,
        files: str | Path | Sequence[str | Path] | None = None,
        dataset: str | DatasetConfig | None = None,
        seq_len: int | None = None,
        seed: int | None = None,
        chunk_size: int = CHUNK,
        cache: str | Path | None = None,
        device: str | torch.device = "auto",
    ) -> "ActivationStream":
        """Make the stream of a model's activations at a hook, on the text of one of `texts`, `files` and `dataset`.

        model: a name in conf/model ("embedded", "gpt2-small", ...), the folder or hub name of a Hugging Face decoder,
            or a ModelConfig for further settings
        hook: TransformerLens' name, e.g. "blocks.8.hook_resid_pre"; None takes the hook in conf/model
        texts: the documents themselves, each a string
        files: one or several globs of .txt (a document each), .jsonl or .parquet files (a document per row, in the
            column `text`); .txt and .jsonl files may be compressed: .gz, .bz2, .xz, .zst
        dataset: a name in conf/dataset ("embedded", "openwebtext"), or a DatasetConfig for further settings
        seq_len: tokens per sequence, BOS included; None takes the length that the data set has, 128 by default
        seed: for the order of sequences and activations; None takes the seed that the data set has, 0 by default
        chunk_size: activations that are shuffled together: training.batch_size * training.chunk_batches of the command
        cache: a folder that keeps the model's activations for later streams of the same model, hook and text
        device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N"

        One document in 20 (`DatasetConfig.holdout_every`) is held out. Raises: ConfigError as the constructor does.
        """
        text, folder = choose_text(texts, files, dataset)
        changes: dict[str, Any] = {} if seq_len is None else {"seq_len": require_whole("seq_len", seq_len, 3)}
        changes |= {} if seed is None else {"seed": require_whole("seed", seed, 0)}
        chunk_size, device = require_whole("chunk_size", chunk_size, 1), str(device)
        decoder = choose_model(model, hook)
        config = build_config(
            model=replace(decoder, dtype=resolve_dtype(decoder.dtype, device)),
            dataset=replace(text, **changes),
            training=TrainingConfig(tokens=chunk_size, batch_size=chunk_size, chunk_batches=1),
            activations=ActivationsConfig(cache=None if cache is None else str(cache)),
            tracking=TrackingConfig(mode="off"),
            device=device,
        )
        stream = cls(config)
        stream._texts = folder
        return stream

    @property
    def model(self) -> LanguageModel:
        """Return the language model, with `tokenizer`, `encode` and `cross_entropy`."""
        return self._source.model

    @property
    def device(self) -> torch.device:
        """Return the device of the language model, on which activations are computed."""
        return self._source.device

    @property
    def d_in(self) -> int:
        """Return the width of an activation, D."""
        return self._source.d_in

    def __repr__(self) -> str:
        model = self.config.model
        return f"ActivationStream({model.name}, {model.hook}, d_in={self.d_in}, chunk_size={self.chunk_size})"

    def chunk(self, index: int) -> Tensor:
        """Return chunk `index` of the training text: shuffled raw activations (A, D) in float32, A = `chunk_size`.

        After the last sequence the text is repeated in another order. Raises: ConfigError if the training text does
        not fill one sequence.
        """
        return self._chunks.chunk(require_whole("index", index, 0)).float()

    def held_out(self, activations: int = CHUNK) -> HeldOut:
        """Return about `activations` held-out activations (all if the text has fewer), for `evaluate` and `stitch`.

        `acts_AD` are the activations (A, D), `tokens_A` their tokens, `is_data_NS` the places of both in the sequences
        `tokens_NS`, `ce` the model's own cross-entropy in nats per token. Each number of activations is measured once.
        Raises: ConfigError if the held-out text does not fill one sequence, or if a number is not finite.
        """
        return self._source.held_out(require_whole("activations", activations, 1))


@check_names
def train_pack(
    saes: TrainableSAE | Sequence[TrainableSAE],
    stream: ActivationStream | TensorStream,
    settings: TrainingConfig | Sequence[TrainingConfig] | None = None,
    *,
    tokens: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    betas: Sequence[float] | None = None,
    warmup_steps: int | None = None,
    decay_fraction: float | None = None,
    initial_bias: str | None = None,
    dead_after_tokens: int | None = None,
    precision: str | None = None,
    log_every: int | None = None,
    progress: bool = True,
    on_line: OnLine | None = None,
) -> list[Curve]:
    """Train SAEs in place on one stream, and return a training curve for each; the language model runs once for all.

    saes: one or several of BatchTopKSAE, TopKSAE, ...; training starts from their weights. They are moved to the device
        of the language model, or with a TensorStream to the device of the first SAE
    settings: one TrainingConfig for all SAEs or one for each; the values that are given by name, from `tokens` to
        `log_every`, replace its values. `help(TrainingConfig)` shows the defaults
    progress: show bars on a terminal, a line every few seconds elsewhere
    on_line: called with an SAE and each new line of the SAE's curve

    Returns a curve for each SAE, with a line every `log_every` steps and at the end: step, tokens, loss, mse (per
    element, of normalised activations), aux_loss, l0, dead_fraction, lr. `pandas.DataFrame(curve)` makes it a table.

    With the same settings, an SAE is the same to the byte, trained alone, with any others or by the command.
    Raises: ConfigError if a setting cannot be used; TrainingError if a loss is not finite.
    """
    values: dict[str, Any] = {"tokens": tokens, "batch_size": batch_size, "lr": lr, "betas": betas}
    values |= {"warmup_steps": warmup_steps, "decay_fraction": decay_fraction, "initial_bias": initial_bias}
    values |= {"dead_after_tokens": dead_after_tokens, "precision": precision, "log_every": log_every}
    trainers = _make_trainers(saes, stream, settings, values)
    return _train(trainers, stream, progress=progress, on_line=on_line)


def _train(
    trainers: list[Trainer], stream: ActivationStream | TensorStream, *, progress: bool, on_line: OnLine | None
) -> list[Curve]:
    """Take all steps of the trainers, and return a curve for each."""
    curves: dict[Trainer, Curve] = {trainer: [] for trainer in trainers}
    with _show_training(trainers) if progress and trainers else nullcontext() as show:
        for trainer, steps in train(trainers, stream):
            for step in steps:
                if show is not None:
                    show(trainer, step)
                if trainer.steps_done % trainer.config.log_every == 0 or trainer.finished:
                    line = curve_line(trainer, step)
                    curves[trainer].append(line)
                    if on_line is not None:
                        on_line(trainer.sae, line)
    return list(curves.values())


@check_names
def save_sae(sae: TrainableSAE | InferenceSAE, folder: str | Path, stream: ActivationStream | None = None) -> None:
    """Write an SAE as cfg.json and sae_weights.safetensors, for `load_sae`, the command (`sae=FOLDER`) and SAELens 6.

    With the stream that the SAE was trained on, cfg.json also names the model, the hook and the text.
    Raises: ConfigError if an argument is of another type; OSError if the folder cannot be written.
    """
    require_type("sae", sae, TrainableSAE | InferenceSAE, "one SAE", "save_sae(sae, folder)")
    require_type("folder", folder, str | Path, "a path", "save_sae(sae, folder)")
    fix = "leave it out, or give the ActivationStream that the SAE was trained on"
    require_type("stream", stream, ActivationStream | None, "an ActivationStream", fix)
    origin = {"k": k} if isinstance(sae, TrainableSAE) and (k := getattr(sae, "k", None)) is not None else {}
    metadata = {} if stream is None else text_metadata(stream.config)
    if stream is not None and stream._texts is not None:
        metadata.pop("dataset_path")  # the temporary folder is deleted with the stream
    saved = sae.for_inference() if isinstance(sae, TrainableSAE) else sae
    saelens.write(expand_folder(folder, "folder"), saved, {"sae_sweeps": origin, **metadata})


def _make_trainers(saes: Any, stream: Any, settings: Any, values: dict[str, Any]) -> list[Trainer]:
    """Return a trainer for each SAE, all moved to one device. Raises: ConfigError for an unfit argument."""
    kinds = ActivationStream | TensorStream
    require_type("stream", stream, kinds, "an ActivationStream or TensorStream", "TensorStream(acts, batch_size=...)")
    saes = [saes] if isinstance(saes, SAE) else saes
    require_type("saes", saes, list | tuple, "an SAE, or a list of SAEs", "train_pack([sae, ...], stream, ...)")
    given = settings if isinstance(settings, Sequence) else [settings] * len(saes)
    if len(given) != len(saes):
        fix = "give one TrainingConfig for all SAEs, or one for each"
        raise ConfigError("settings", len(given), f"must have one entry for each of {len(saes)} SAEs", fix)
    configs = [build_settings(TrainingConfig, one, values) for one in given]
    for number, (sae, config) in enumerate(zip(saes, configs, strict=True)):
        _require_fitting(sae, config, stream)
        if any(sae is earlier for earlier in saes[:number]):
            raise ConfigError(f"saes[{number}]", sae, "is in the list twice", "train_pack once more trains it further")
    if not saes:
        return []
    device = stream.device if isinstance(stream, ActivationStream) else saes[0].W_dec.device
    for config in configs:
        require_precision(config.precision, device)
    return [Trainer(sae.to(device), config) for sae, config in zip(saes, configs, strict=True)]


def _require_fitting(sae: Any, config: TrainingConfig, stream: ActivationStream | TensorStream) -> None:
    """Check that an SAE can be trained on a stream. Raises: ConfigError if the class, width or batch is wrong."""
    if isinstance(sae, InferenceSAE):
        problem = "must be an SAE that can be trained, but this class (as load_sae returns it) is for inference only"
        raise ConfigError("saes", type(sae).__name__, problem, MAKE)
    require_type("saes", sae, TrainableSAE, "SAEs", MAKE)
    if sae.d_in != stream.d_in:
        raise ConfigError("d_in", sae.d_in, f"must be the width of the stream, {stream.d_in}", f"d_in={stream.d_in}")
    if stream.chunk_size % config.batch_size != 0:
        problem = f"must divide the stream's chunk_size of {stream.chunk_size} activations"
        raise ConfigError("training.batch_size", config.batch_size, problem, "make chunk_size a multiple of batch_size")


@contextmanager
def _show_training(trainers: Sequence[Trainer]) -> Iterator[Callable[[Trainer, Step], None]]:
    """Show the progress of each trainer. Yields the function to call with a trainer and each step that it has done."""
    with ExitStack() as closing:
        names = {
            trainer: f"{trainer.sae.architecture}-{trainer.sae.dict_size} ({number} of {len(trainers)})"
            for number, trainer in enumerate(trainers, start=1)
        }
        totals = {trainer: trainer.config.steps * trainer.config.batch_size for trainer in trainers}
        tokens = {names[trainer]: total for trainer, total in totals.items()}
        display = closing.enter_context(SweepProgress(len(trainers), "SAEs", tokens).live())
        lines = {}
        for trainer, name in names.items():
            lines[trainer] = display.add_point(name)
            lines[trainer].start(trainer.tokens_done)
            closing.callback(lines[trainer].close)

        def show(trainer: Trainer, step: Step) -> None:
            lines[trainer].show_step(trainer.tokens_done, totals[trainer], step.loss, step.l0)
            if trainer.finished:
                display.count_finished(names[trainer], failed=False)

        yield show
