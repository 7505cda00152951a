"""For notebooks and scripts: activations from a few settings, and SAEs trained on them (docs/library.md).

The work is done where the command has it done (tasks/inputs.py, training.py): the same settings give the same SAEs, to
the byte.
"""

# A activations in a chunk, D model width

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import ActivationsConfig, Config, DatasetConfig, ModelConfig, TrackingConfig, TrainingConfig
from sae_sweeps.config.presets import build_config, build_settings, preset, presets
from sae_sweeps.formats import saelens
from sae_sweeps.formats.metadata import text_metadata
from sae_sweeps.runtime.devices import choose_device, require_precision, resolve_dtype
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.saes import InferenceSAE, TopKSAE, TrainableSAE
from sae_sweeps.sweep.preflight import INPUTS, check
from sae_sweeps.training.streams import TensorStream
from sae_sweeps.training.trainer import Trainer, curve_line, train

CHUNK = 32_768  # activations that are shuffled together
SUFFIXES = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

Curve = list[dict[str, float]]


class ActivationStream:
    """A language model's activations at one hook: shuffled chunks of training text, and held-out text to measure on.

    Chunk i depends on the settings and i alone, so a stream can be gone through any number of times, by any number of
    SAEs. Activations of the BOS token are left out. `ActivationStream.from_model` makes one from a few settings; the
    constructor takes the whole configuration of a point, as the command has it.

    model: the language model, with its `tokenizer`, `encode` and `cross_entropy`
    d_in: the width of an activation
    chunk_size: activations in a chunk
    config: the settings that it was made of
    """

    def __init__(self, config: Config) -> None:
        """Raises: ConfigError if the model, its hook, the text or the device cannot be used; told, as far as possible,
        before anything is loaded."""
        for error in check(config, INPUTS):
            raise error
        self.config = config
        self._inputs = ActivationSource(config, choose_device(config.device))
        self._chunks = self._inputs.stream(config)
        self.chunk_size = self._chunks.chunk_size
        self._texts: TemporaryDirectory[str] | None = None  # which goes with the stream

    @classmethod
    def from_model(
        cls,
        model: str | Path | ModelConfig,
        hook: str | None = None,
        *,
        texts: Sequence[str] | None = None,
        files: str | Sequence[str] | None = None,
        dataset: str | DatasetConfig | None = None,
        seq_len: int | None = None,
        seed: int | None = None,
        chunk_size: int = CHUNK,
        cache: str | Path | None = None,
        device: str = "auto",
    ) -> "ActivationStream":
        """The stream of a model at a hook, on one of three kinds of text.

        model: a name in conf/model ("embedded", "gpt2-small", ...), the folder or hub name of a Hugging Face decoder,
            or a ModelConfig, which has more to set
        hook: TransformerLens' name, e.g. "blocks.8.hook_resid_pre"; None takes that of conf/model
        texts: the documents themselves, each a string
        files: a glob, or several, of .txt (a document each), .jsonl or .parquet files (a document per row, in the
            column `text`), which may be gzipped
        dataset: a name in conf/dataset ("embedded", "openwebtext"), or a DatasetConfig, which has more to set
        seq_len: tokens per sequence, BOS included; None takes that of the data set, 128 if it does not say
        seed: of the order of sequences and activations; None takes that of the data set, 0 if it does not say
        chunk_size: activations that are shuffled together: training.batch_size * training.chunk_batches of the command
        cache: a folder that keeps the model's activations for later streams of the same model, hook and text
        device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N"

        One document in 20 (`DatasetConfig.holdout_every`) is held out. Raises: ConfigError as the constructor does.
        """
        kinds = {"texts": texts, "files": files, "dataset": dataset}
        given = [kind for kind, value in kinds.items() if value is not None]
        if len(given) != 1:
            problem = "a stream is of one kind of text"
            raise ConfigError("text", " and ".join(given) or None, problem, "give one of texts=, files= and dataset=")
        folder = TemporaryDirectory(prefix="sae-sweeps-") if texts is not None else None
        if texts is not None and folder is not None:
            text = _written(texts, Path(folder.name))
        elif files is not None:
            text = DatasetConfig(format=_format(files), files=files if isinstance(files, str) else list(files))
        else:
            assert dataset is not None, "one of the three is given"
            text = dataset if isinstance(dataset, DatasetConfig) else preset("dataset", dataset, DatasetConfig)
        changes: dict[str, Any] = {"seq_len": seq_len, "seed": seed}
        of_model = _model(model, hook)
        config = build_config(
            model=replace(of_model, dtype=resolve_dtype(of_model.dtype, device)),
            dataset=replace(text, **{name: value for name, value in changes.items() if value is not None}),
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
        return self._inputs.model

    @property
    def device(self) -> torch.device:
        return self._inputs.device

    @property
    def d_in(self) -> int:
        return self._inputs.d_in

    def chunk(self, index: int) -> Tensor:
        """Raw activations (A, D) in float32, A = `chunk_size`, of chunk 0, 1, 2, ... of the training text, which comes
        again in another order when it has been gone through. Raises: ConfigError if it does not fill a sequence."""
        return self._chunks.chunk(index)

    def held_out(self, activations: int = CHUNK) -> HeldOut:
        """About so many held-out activations, fewer if there is no more text: `acts_AD` (A, D), their tokens
        `tokens_NS`, and the model's own cross entropy `ce`, in nats per token; `evaluate` and `stitch` measure on
        them. The first position of a sequence that is in `acts_AD` is `first_position`. Measured once for each number.

        Raises: ConfigError if the held-out text does not fill a sequence.
        """
        return self._inputs.held_out(activations)


def train_pack(
    saes: Sequence[TrainableSAE],
    stream: ActivationStream | TensorStream,
    settings: TrainingConfig | Sequence[TrainingConfig] | None = None,
    *,
    progress: bool = True,
    on_line: Callable[[TrainableSAE, dict[str, float]], None] | None = None,
    **values: Any,
) -> list[Curve]:
    """Train SAEs side by side, in place, on one stream: the language model runs once for all of them.

    saes: a BatchTopKSAE, TopKSAE, ... each, whose weights are what training starts from; moved to the device of the
        language model, or with a TensorStream to that of the first of them
    settings: a TrainingConfig for all of them or one for each; or its values by name: train_pack(saes, stream,
        tokens=1_000_000, batch_size=4096, lr=3e-4). `chunk_batches` is the stream's to say, and nothing is saved:
        `checkpoint_every` and `keep_states` have no meaning here
    progress: show bars on a terminal, a line every few seconds elsewhere
    on_line: called with the SAE and each new line of its curve

    Returns, for each SAE, a line every `log_every` steps and at the end: step, tokens, loss, mse (per element, of
    normalised activations), aux_loss, l0, dead_fraction, lr. `pandas.DataFrame(curve)` makes a table of it.

    An SAE comes out the same to the byte in any pack, alone, and as a point of the command with the same settings.
    Raises: ConfigError if a setting cannot work; TrainingError if a loss is not finite.
    """
    if not saes:
        return []
    given = settings if isinstance(settings, Sequence) else [settings] * len(saes)
    if len(given) != len(saes):
        raise ConfigError("settings", len(given), f"are not one for each of {len(saes)} SAEs", "give one, or as many")
    configs = [build_settings(TrainingConfig, one, values) for one in given]
    device = stream.device if isinstance(stream, ActivationStream) else saes[0].W_dec.device
    for sae, config in zip(saes, configs, strict=True):
        _require_fitting(sae, config, stream, device)
    trainers = [Trainer(sae.to(device), config) for sae, config in zip(saes, configs, strict=True)]
    curves: dict[Trainer, Curve] = {trainer: [] for trainer in trainers}
    with ExitStack() as closing:
        shown = {}
        if progress:
            display = closing.enter_context(SweepProgress(len(saes), "SAEs").live())
            for number, trainer in enumerate(trainers, start=1):
                name = f"{trainer.sae.architecture}-{trainer.sae.dict_size} ({number} of {len(saes)})"
                shown[trainer] = display.point(name)
                closing.callback(shown[trainer].close)
        for trainer, steps in train(trainers, stream):
            for step in steps:
                if progress:
                    total = trainer.config.steps * trainer.config.batch_size
                    shown[trainer].progress(trainer.tokens_done, total, step.loss, step.l0)
                if trainer.steps_done % trainer.config.log_every == 0 or trainer.finished:
                    line = curve_line(trainer, step)
                    curves[trainer].append(line)
                    if on_line is not None:
                        on_line(trainer.sae, line)
    return list(curves.values())


def _require_fitting(
    sae: TrainableSAE, config: TrainingConfig, stream: ActivationStream | TensorStream, device: torch.device
) -> None:
    """Raises: ConfigError if the SAE cannot be trained so on this stream."""
    if not isinstance(sae, TrainableSAE):
        problem = "is an SAE for inference, as load_sae gives it, and cannot be trained"
        raise ConfigError("saes", type(sae).__name__, problem, "make a BatchTopKSAE, TopKSAE, JumpReLUSAE, ...")
    if sae.d_in != stream.d_in:
        raise ConfigError("d_in", sae.d_in, f"the stream's activations are {stream.d_in} wide", f"d_in={stream.d_in}")
    if stream.chunk_size % config.batch_size != 0:
        problem = f"the stream's chunks of {stream.chunk_size} activations are no whole number of such batches"
        raise ConfigError("training.batch_size", config.batch_size, problem, "give the stream another chunk_size")
    require_precision(config.precision, device)


def save_sae(sae: TrainableSAE | InferenceSAE, folder: str | Path, stream: ActivationStream | None = None) -> None:
    """Write an SAE as cfg.json and sae_weights.safetensors, which `load_sae`, the command (`sae=FOLDER`) and SAELens 6
    read. With the stream that it was trained on, the files tell the model, the hook and the text.

    Raises: OSError if the folder cannot be written.
    """
    origin = {"k": sae.k} if isinstance(sae, TopKSAE) else {}
    metadata = {} if stream is None else text_metadata(stream.config)
    if stream is not None and stream._texts is not None:
        metadata.pop("dataset_path")  # which is nobody's but this process's
    saved = sae.for_inference() if isinstance(sae, TrainableSAE) else sae
    saelens.write(Path(folder).expanduser(), saved, {"sae_sweeps": origin, **metadata})


def _model(given: str | Path | ModelConfig, hook: str | None) -> ModelConfig:
    """Raises: ConfigError if no hook is given, and conf/ has none."""
    if isinstance(given, ModelConfig):
        config = given
    elif str(given) in presets("model"):
        config = preset("model", str(given), ModelConfig)
    else:
        config = ModelConfig(name=str(given))
    config = config if hook is None else replace(config, hook=hook)
    if config.hook == MISSING:
        raise ConfigError("hook", None, "has no default for this model", "hook=blocks.L.hook_resid_pre, L its layer")
    return config


def _written(texts: Sequence[str], folder: Path) -> DatasetConfig:
    """Documents as a data set of the usual kind."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ConfigError("texts", type(texts).__name__, "is no list of strings", "texts=[document, another, ...]")
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return DatasetConfig(format="json", files=str(file))


def _format(files: str | Sequence[str]) -> str:
    """Raises: ConfigError if the names do not tell."""
    names = [files] if isinstance(files, str) else list(files)
    suffixes = {Path(name.removesuffix(".gz")).suffix for name in names}
    if len(suffixes) != 1 or (suffix := suffixes.pop()) not in SUFFIXES:
        fix = "dataset=DatasetConfig(format=..., files=...)"
        raise ConfigError("files", files, f"do not all end in one of {', '.join(SUFFIXES)}", fix)
    return SUFFIXES[suffix]
