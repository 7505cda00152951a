"""Training of SAEs on an activation stream, step by step, resumable at any step."""

# A activations in a chunk, B in a batch, D model width, F latents

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sae_sweeps.config import TrainingConfig
from sae_sweeps.runtime.devices import resolve_precision
from sae_sweeps.runtime.errors import TrainingError
from sae_sweeps.saes import Step, TrainableSAE, Variant
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.step import StepGradients
from sae_sweeps.training.adam import KernelUpdate, make_update
from sae_sweeps.training.fixed_step import FixedSteps
from sae_sweeps.training.streams import HookStream, Stream

log = logging.getLogger(__name__)

LARGE_MEAN = 1.0  # norm of the mean over the spread of activations, above which zero is a bad start of the biases


class Trainer:
    """An SAE with an optimizer and counters; `state` returns everything that the coming steps depend on.

    The optimizer is Adam. Decoder rows keep unit norm: the gradient has no part along a row, and the norm is restored
    after the update (arXiv:2412.06410, appendix), or before it (`config.normalize_before_update`).
    """

    def __init__(self, sae: TrainableSAE, config: TrainingConfig) -> None:
        self.sae, self.config = sae, config
        self._precision = resolve_precision(config.precision, sae.W_dec.device)
        self._variant = Variant(
            has_unit_rows=not config.normalize_before_update,
            counts_batch=config.dead_counts_batch,
            has_residual_gradient=config.aux_residual_gradient,
        )
        self.steps_done = 0
        self.stopped = False
        self.idle_tokens_F = torch.zeros(sae.dict_size, dtype=torch.int64, device=sae.W_dec.device)
        self._peak_lr = config.peak_lr(sae.dict_size)
        self._update = make_update(sae, config, self._variant)
        self._fixed = FixedSteps(self) if isinstance(self._update, KernelUpdate) else None

    @property
    def device(self) -> torch.device:
        """Return the device that holds the SAE's weights."""
        return self.sae.W_dec.device

    @property
    def finished(self) -> bool:
        """Return whether all `config.steps` steps are done."""
        return self.steps_done >= self.config.steps

    @property
    def tokens_done(self) -> int:
        """Return the number of activations trained on so far."""
        return self.steps_done * self.config.batch_size

    @property
    def dead_F(self) -> Tensor:
        """Return which latents have not been active for the last `config.dead_after_tokens` activations, bool (F,)."""
        return self._find_dead()

    def _find_dead(self, more: int = 0) -> Tensor:
        """Return which latents are dead once they have not been active on `more` activations either, bool (F,)."""
        return self.idle_tokens_F + more >= self.config.dead_after_tokens

    @property
    def used_graph(self) -> bool:
        """Return whether the latest step was a repetition of a CUDA graph."""
        return self._fixed is not None and self._fixed.used_graph

    def lr(self, step: int) -> float:
        """Return the learning rate of step `step`, between 1 and `config.steps`, with warmup and decay applied."""
        config, scale = self.config, 1.0
        if config.warmup_steps > 0:
            scale = min(scale, step / config.warmup_steps)
        if config.decay_fraction > 0:
            scale = min(scale, (config.steps - step + 1) / (config.decay_fraction * config.steps))
        return self._peak_lr * scale

    def step(self, x_BD: Tensor) -> Step:
        """Take one optimizer step on a batch of raw activations (B, D), and return loss, L0 and active latents.

        Raises: TrainingError if the loss is not finite; the parameters are then not updated.
        """
        self._update.prepare(self.lr(self.steps_done + 1), self.steps_done + 1)
        step = None if self._fixed is None else self._fixed.take(x_BD)
        if step is None:
            step = self._step_freely(x_BD)
        self.steps_done += 1
        return step

    def _step_freely(self, x_BD: Tensor) -> Step:
        """Take a step of which nothing is known before, with as many entries as there are."""
        dead_F = self._find_dead(len(x_BD) if self.config.dead_counts_batch else 0)
        if self.steps_done == 0:
            self.sae.start(self._normalize(x_BD))
        found = self.compute(x_BD, dead_F)
        if not torch.isfinite(found.step.loss):
            raise self.infinite_error(found.step.loss.item())
        self.apply(found)
        if self._fixed is not None:
            self._fixed.learn(x_BD, found)
        return found.step

    def infinite_error(self, loss: float) -> TrainingError:
        """Return the error of a step whose loss is not finite."""
        return TrainingError(f"the loss is {loss} at step {self.steps_done + 1}, so training stops; lower training.lr")

    def compute(self, x_BD: Tensor, dead_F: Tensor | None, room: Room | None = None) -> StepGradients:
        """Return the loss of raw activations (B, D), and what the gradients consist of.

        See `TrainableSAE.compute_gradients`.
        """
        x_BD = self._normalize(x_BD)
        return self.sae.compute_gradients(x_BD, dead_F, self._precision, self._variant, room)

    def apply(self, found: StepGradients, skipped: Tensor | None = None) -> None:
        """Take Adam's step with these gradients, and count the latents that were active."""
        self._update.take(found, skipped)
        self.sae.after_update()
        self.idle_tokens_F += found.input_BD.shape[0]
        self.idle_tokens_F.masked_fill_(found.step.fired_F, 0)
        if self.config.dead_threshold_factor < 1:
            self.sae.lower_thresholds(self.dead_F, self.config.dead_threshold_factor)

    def count_dead(self) -> Tensor:
        """Return how many latents count as dead in the next step, ()."""
        return self._find_dead(self.config.batch_size if self.config.dead_counts_batch else 0).sum()

    def small_state(self) -> list[Tensor]:
        """Return all that a step changes in place, but W_enc and W_dec and their moments."""
        found = [self.idle_tokens_F, *self.sae.buffers()]
        for name, parameter in self.sae.named_parameters():
            slots = self._update.optimizer.state[parameter]
            found.append(slots["step"])
            if name not in ("W_enc", "W_dec"):
                found += [parameter.detach(), slots["exp_avg"], slots["exp_avg_sq"]]
        return found

    def steps(self, chunk_AD: Tensor) -> Iterator[Step]:
        """Train on the batches of a chunk of raw activations (A, D) that are still left, and yield each step's result.

        At the first step of all, `initial_bias=mean` sets the biases from the mean of the chunk, and
        `initial_weights=data` the weights from its activations.
        """
        if self.steps_done == 0:
            x_AD = self._normalize(chunk_AD)
            self._start_biases(x_AD)
            if self.config.initial_weights == "data":
                self.sae.start_from(x_AD)
            del x_AD
        batches = chunk_AD.split(self.config.batch_size)
        for x_BD in batches[self.steps_done % len(batches) :]:
            if self.finished:
                return
            yield self.step(x_BD)

    def _normalize(self, x_BD: Tensor) -> Tensor:
        """Return normalised activations (B, D) in float32, from raw ones in float32, bfloat16 or float16."""
        return self.sae.normalize(x_BD.float()).x_BD

    def _start_biases(self, x_AD: Tensor) -> None:
        """Set the biases from the mean of normalised activations (A, D), or warn that zero is a bad start for them."""
        if self.config.initial_bias == "mean":
            self.sae.center(x_AD.mean(0))
        elif (ratio := measure_mean(x_AD)) > LARGE_MEAN:
            log.warning(
                "training.initial_bias=zero: the mean of the %sactivations is %.1f times their spread, so most latents "
                "of this %s SAE may die; training.initial_bias=mean starts from the mean",
                *("normalised " if self.sae.normalization != "none" else "", ratio, self.sae.architecture),
            )

    def require_finite(self) -> None:
        """Check that all tensors of the state are finite. Raises: TrainingError that names those that are not."""
        wrong = [name for name, tensor in self.state().items() if not bool(tensor.isfinite().all())]
        if wrong:
            raise TrainingError(
                f"after step {self.steps_done} these are not finite: {', '.join(wrong)}. Training stops and keeps the "
                "checkpoint before; lower training.lr"
            )

    def state(self) -> dict[str, Tensor]:
        """Return everything that the coming steps depend on as tensors by name: SAE, Adam's moments and counters."""
        state = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for slot, tensor in self._update.optimizer.state[parameter].items():
                state[f"adam.{name}.{slot}"] = tensor
        state["idle_tokens"] = self.idle_tokens_F
        state["steps_done"] = torch.tensor(self.steps_done)
        return state

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Check that tensors may be what `state` returned. Raises: ValueError that names one which is not."""
        shapes = {f"sae.{name}": tensor.shape for name, tensor in self.sae.state_dict().items()}
        if not self.sae.centers_input and "sae.input_center" not in state:
            shapes.pop("sae.input_center")  # in checkpoints from before this buffer existed
        shapes |= {"idle_tokens": self.idle_tokens_F.shape, "steps_done": torch.Size()}
        for name, parameter in self.sae.named_parameters():
            shapes |= {f"adam.{name}.{slot}": parameter.shape for slot in ("exp_avg", "exp_avg_sq")}
            shapes[f"adam.{name}.step"] = torch.Size()
        for name, shape in shapes.items():
            if name not in state or state[name].shape != shape:
                found = tuple(state[name].shape) if name in state else "missing"
                raise ValueError(f"{name} is {found} instead of {tuple(shape)}")
        if not 0 < int(state["steps_done"]) <= self.config.steps:
            raise ValueError(f"it is of step {int(state['steps_done'])} of {self.config.steps}")

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore SAE, optimizer and counters from the tensors that `state` returned."""
        weights = {name[4:]: tensor for name, tensor in state.items() if name.startswith("sae.")}
        if not self.sae.centers_input:  # checkpoints from before this buffer existed have all of it in b_enc
            weights.setdefault("input_center", torch.zeros_like(self.sae.input_center))
        self.sae.load_state_dict(weights)
        for name, parameter in self.sae.named_parameters():
            prefix = f"adam.{name}."
            slots = {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
            self._update.optimizer.state[parameter] = {
                slot: tensor.to(parameter.device) for slot, tensor in slots.items()
            }
        self.idle_tokens_F = state["idle_tokens"].to(self.idle_tokens_F.device)
        self._fixed = None if self._fixed is None else FixedSteps(self)  # tensors have been replaced
        self.steps_done = int(state["steps_done"])


def measure_mean(x_AD: Tensor) -> float:
    """Return the norm of the mean of activations (A, D) over their spread, the root of the mean of |x - mean|^2.

    It is 0 where no activation differs from the mean.
    """
    mean_D = x_AD.mean(0)
    spread = (x_AD - mean_D).square().sum(1).mean().sqrt().item()
    return mean_D.norm().item() / spread if spread > 0 else 0.0


def train(
    trainers: Sequence[Trainer],
    stream: Stream,
    read_ahead: Callable[[int], None] | None = None,
    hooks: Mapping[Trainer, str] | None = None,
) -> Iterator[tuple[Trainer, Iterator[Step]]]:
    """Train all trainers in one pass over the stream, with each chunk made once and shared.

    Trainers that have done steps before join at the chunk they have reached. Yields, chunk by chunk, each trainer with
    steps left in the chunk and an iterator that takes these steps; the caller must exhaust the iterator. A trainer with
    `stopped` set takes no further part. Each trainer's batch size must divide the chunk size.

    read_ahead: called before the steps on a chunk with the index of the chunk after it, unless no trainer needs one
    hooks: the hook of each trainer, for a `HookStream`. An iterator raises the error of its hook's chunk
    Raises: RuntimeError if the caller does not exhaust an iterator.
    """
    while left := [trainer for trainer in trainers if not (trainer.finished or trainer.stopped)]:
        index = min(trainer.tokens_done for trainer in left) // stream.chunk_size
        here = [trainer for trainer in left if trainer.tokens_done // stream.chunk_size == index]
        chunks: list[Tensor | Exception] = []  # frees the memory of the last chunk before the next one is made
        chunks = _make_chunks(stream, index, here, hooks)
        if read_ahead is not None and (following := _find_next_chunk(left, index, stream.chunk_size)) is not None:
            read_ahead(following)
        for trainer, chunk in zip(here, chunks, strict=True):
            yield trainer, _take_steps(trainer, chunk)
            if trainer.tokens_done // stream.chunk_size == index and not (trainer.finished or trainer.stopped):
                raise RuntimeError("each iterator of steps must be exhausted before the next one is requested")


def _make_chunks(
    stream: Stream, index: int, trainers: Sequence[Trainer], hooks: Mapping[Trainer, str] | None
) -> list[Tensor | Exception]:
    """Return chunk `index` for each trainer, on its device: the same tensor for all trainers of a hook."""
    device = trainers[0].device
    if hooks is None:
        return [stream.chunk(index).to(device)] * len(trainers)
    assert isinstance(stream, HookStream), "only such a stream has several hooks"
    made = stream.chunks(index, list(dict.fromkeys(hooks[trainer] for trainer in trainers)))
    placed = {hook: chunk if isinstance(chunk, Exception) else chunk.to(device) for hook, chunk in made.items()}
    return [placed[hooks[trainer]] for trainer in trainers]


def _take_steps(trainer: Trainer, chunk: Tensor | Exception) -> Iterator[Step]:
    if isinstance(chunk, Exception):
        raise chunk
    yield from trainer.steps(chunk)


def _find_next_chunk(trainers: Sequence[Trainer], index: int, chunk_size: int) -> int | None:
    """Return the chunk that is needed after all trainers have trained on chunk `index`; None if all are finished."""
    trained = (index + 1) * chunk_size
    unfinished = [each for each in trainers if each.config.steps * each.config.batch_size > trained]
    return min((max(each.tokens_done, trained) // chunk_size for each in unfinished), default=None)
