"""What `gpu_check.py` measures: one function per part, each returning rows of a table.

A row is a dictionary of column -> value. Every function takes a `Check`.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from steps.common import ARCHITECTURES, Spec, batches, threshold_for
from torch import Tensor

from sae_sweeps.config.schema import TrainingConfig
from sae_sweeps.saes import TRAINABLE, TopKSAE
from sae_sweeps.training.fixed_step import FixedSteps
from sae_sweeps.training.trainer import Trainer

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Check:
    """What to check on: a device, at full size or, as a rehearsal, at a small one; and a folder for logs."""

    device: str
    small: bool
    folder: Path

    def spec(self, architecture: str, **values: Any) -> Spec:
        """Return the size of a training step: 24 576 latents on GPT-2's width, or a small one."""
        sizes = {"d": 64, "dict_size": 512, "k": 8, "batch": 128} if self.small else {}
        full = {"d": 768, "dict_size": 24576, "k": 32, "batch": 4096}
        return Spec(architecture=architecture, device=self.device, **{**full, **values, **sizes})

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device != "cpu"


@contextlib.contextmanager
def using_kernels(wanted: bool) -> Iterator[None]:
    """Let trainers that are made within the context use the Triton kernels, or not."""
    before = os.environ.get("SAE_SWEEPS_KERNELS")
    os.environ["SAE_SWEEPS_KERNELS"] = str(int(wanted))
    try:
        yield
    finally:
        os.environ.pop("SAE_SWEEPS_KERNELS")
        if before is not None:
            os.environ["SAE_SWEEPS_KERNELS"] = before


make_batches = functools.lru_cache(maxsize=1)(batches)


def make_trainer(spec: Spec, precision: str = "auto") -> Trainer:
    """Return a trainer with the L0 of `spec` from the first step on, and with its share of dead latents."""
    limits = {"sparsity_coefficient": 1e-3} if spec.architecture == "jumprelu" else {"k": spec.k}
    sae = TRAINABLE[spec.architecture](spec.d, spec.dict_size, **limits).to(spec.device)
    config = TrainingConfig(
        tokens=10**12, batch_size=spec.batch, lr=1e-6, dead_after_tokens=10**12, warmup_steps=0, precision=precision
    )
    trainer = Trainer(sae, config)
    x_BD = make_batches(spec)[0][:256]
    with torch.no_grad():
        if spec.architecture == "jumprelu":
            pre_BF = sae.product(sae.encoder_input(sae.normalize(x_BD).x_BD)).to_dense()
            sae.get_parameter("threshold").fill_(threshold_for(spec.k, pre_BF))
        elif spec.dead:
            silent_F = torch.arange(spec.dict_size, device=spec.device) % 10 < 10 * spec.dead
            sae.W_enc[silent_F] *= 0.01
            trainer.idle_tokens_F[silent_F] = 10**12
    return trainer


def time_calls(check: Check, call: Callable[[int], Any], count: int) -> float:
    """Return the median seconds of call(i). On a GPU nothing waits between the calls."""
    count, warmup = (2, 1) if check.small else (count, 5)
    for i in range(warmup):
        call(i)
    if not check.on_gpu:
        marks = [time.perf_counter()]
        for i in range(count):
            call(i)
            marks.append(time.perf_counter())
        return sorted(after - before for before, after in itertools.pairwise(marks))[count // 2]
    torch.cuda.synchronize()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for i in range(count):
        call(i)
        events[i + 1].record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(events))[count // 2]


def check_bytes(check: Check) -> Rows:
    """Six trainings of four steps, a resumed one, and one in each precision: are the bytes the same?"""
    precisions = ["float32", "bfloat16", *(["tf32"] if check.on_gpu else [])]
    spec, rows = check.spec("topk", dict_size=12288), []
    for architecture, wanted in itertools.product(TRAINABLE, (False, True)[: 1 + check.on_gpu]):
        with using_kernels(wanted):
            seen = {_train_and_hash(architecture, spec, "auto") for _ in range(6)}
            row: dict[str, Any] = {"SAE": architecture, "kernels": wanted, "digests of 6": len(seen)}
            row["resumed"] = _train_and_hash(architecture, spec, "auto", resume_after=2) in seen
            row |= {one: _train_and_hash(architecture, spec, one) in seen for one in precisions}
        rows.append(row | ({"fixed as free": _is_fixed_as_free(architecture, spec)} if wanted else {}))
    return rows


def _is_fixed_as_free(architecture: str, spec: Spec) -> str:
    """Return whether ten steps with a graph give the bytes of ten without, and how many of them the graph took."""
    hashes, taken = [], 0
    for steps_before in (FixedSteps.STEPS_BEFORE, 10**9):
        with using_kernels(True), mock.patch.object(FixedSteps, "STEPS_BEFORE", steps_before):
            trainer = _make_any_trainer(architecture, spec, "auto", dead_after=10**9)
            for i in range(10):
                trainer.step(make_batches(spec)[i % 3])
                taken += trainer.used_graph
        hashes.append(_hash(trainer))
    return f"{hashes[0] == hashes[1]}, {taken} of 10"


def _train_and_hash(architecture: str, spec: Spec, precision: str, resume_after: int = 0) -> str:
    """Train for four steps with latents that die meanwhile, on the way stopped and resumed or not; return the hash."""
    trainer, xs = _make_any_trainer(architecture, spec, precision), make_batches(spec)
    for i in range(4):
        if i == resume_after > 0:
            state = {name: tensor.clone().cpu() for name, tensor in trainer.state().items()}
            trainer = _make_any_trainer(architecture, spec, precision)
            trainer.load_state(state)
        trainer.step(xs[i % len(xs)])
    return _hash(trainer)


def _hash(trainer: Trainer) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(trainer.state().items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _make_any_trainer(architecture: str, spec: Spec, precision: str, dead_after: int | None = None) -> Trainer:
    """Return a trainer of any architecture. dead_after: activations after which a latent is dead; one batch if None"""
    limits: dict[str, Any] = {"k": spec.k} if issubclass(TRAINABLE[architecture], TopKSAE) else {"target_l0": spec.k}
    sae = TRAINABLE[architecture](spec.d, spec.dict_size, **limits).to(spec.device)
    values: dict[str, Any] = {"tokens": 10 * spec.batch, "batch_size": spec.batch}
    values["dead_after_tokens"] = spec.batch if dead_after is None else dead_after
    return Trainer(sae, TrainingConfig(**values, lr=1e-3, initial_bias="zero", precision=precision))


STEPS: list[tuple[tuple[str, ...], dict[str, Any]]] = [  # architectures, and what differs from the usual size
    (ARCHITECTURES, {}),
    (ARCHITECTURES, {"dict_size": 12288}),
    (ARCHITECTURES, {"d": 2304, "dict_size": 16384, "k": 64}),
    (ARCHITECTURES, {"batch": 16384}),
    (("batchtopk", "topk"), {"dead": 0.3}),
    (("batchtopk",), {"dict_size": 2**20}),
]


def time_steps(check: Check) -> Rows:
    """Milliseconds and peak memory of a training step."""
    ways = (("float32", False), ("auto", False), ("auto", True))
    return [
        _time_step(check, check.spec(architecture, **size), precision, wanted)
        for architectures, size in (STEPS[:1] if check.small else STEPS)
        for architecture in architectures
        for precision, wanted in (ways[:2] if not check.on_gpu else ways if size == {} else ways[1:])
    ]


def _time_step(check: Check, spec: Spec, precision: str, wanted: bool) -> dict[str, Any]:
    if check.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    bare = _time_products(check, spec)
    with using_kernels(wanted):
        return _time_trainer(check, spec, precision, wanted, bare)


def _time_trainer(check: Check, spec: Spec, precision: str, wanted: bool, bare: dict[str, float]) -> dict[str, Any]:
    xs, trainer = make_batches(spec), make_trainer(spec, precision)
    row: dict[str, Any] = {"SAE": spec.architecture, "d": spec.d, "F": spec.dict_size, "k": spec.k, "B": spec.batch}
    row |= {"dead": spec.dead, "precision": precision, "kernels": wanted}
    if check.on_gpu:
        row["syncs"] = _count_waits(lambda: trainer.step(xs[0]))
    seconds = time_calls(check, lambda i: trainer.step(xs[i % len(xs)]), 10 if spec.dict_size == 2**20 else 30)
    if wanted:
        row["graph"] = trainer.used_graph
    row |= {"ms": 1e3 * seconds} | {f"per {name} product": seconds / bare[name] for name in bare}
    if check.on_gpu:
        row["peak MiB"] = torch.cuda.max_memory_allocated() / 2**20
    return row


def _time_products(check: Check, spec: Spec) -> dict[str, float]:
    """Return the median seconds of x @ W^T alone, a block of rows at a time, by precision."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rows = max(1, min(spec.batch, 2**27 // spec.dict_size))
        x_BD = torch.randn(spec.batch, spec.d, device=spec.device, dtype=dtype)
        W_FD = torch.randn(spec.dict_size, spec.d, device=spec.device, dtype=dtype)
        out_RF = torch.empty(rows, spec.dict_size, device=spec.device, dtype=dtype)

        def call(_: int, x_BD: Tensor = x_BD, W_FD: Tensor = W_FD, out_RF: Tensor = out_RF) -> None:
            for part_RD in x_BD.split(len(out_RF)):
                torch.mm(part_RD, W_FD.T, out=out_RF[: len(part_RD)])

        found[name] = time_calls(check, call, 5)
    return found


def _count_waits(step: Callable[[], Any]) -> int:
    """Return how often a step waits for the GPU."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def profile_steps(check: Check) -> Rows:
    """Microseconds per step of the eight most expensive operations; the whole profiles are in the folder."""
    rows = []
    for architecture, wanted in itertools.product(ARCHITECTURES, (False, True)[: 1 + check.on_gpu]):
        spec = check.spec(architecture)
        with using_kernels(wanted):
            rows += _profile_trainer(check, spec, wanted)
    return rows


def _profile_trainer(check: Check, spec: Spec, wanted: bool) -> Rows:
    from torch.profiler import ProfilerActivity, profile

    xs, trainer = make_batches(spec), make_trainer(spec)
    for i in range(8):  # the last ones repeat a graph, if kernels are wanted
        trainer.step(xs[i % len(xs)])
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * check.on_gpu
    with profile(activities=activities) as seen:
        for x_BD in xs:
            trainer.step(x_BD)
    by = "self_device_time_total" if check.on_gpu else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda event: -getattr(event, by))
    table = seen.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=60)
    (check.folder / f"profile-{spec.architecture}{'-kernels' * wanted}.txt").write_text(table)
    about = {"SAE": spec.architecture, "kernels": wanted}
    return [{**about, "operation": event.key[:60], "us": getattr(event, by) / len(xs)} for event in events[:8]]
