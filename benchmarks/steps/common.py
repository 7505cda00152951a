"""Shared by the scripts of all libraries: the spec, the activations, timing, memory, and the line of JSON.

Each script beside this file times training steps of one library, under the Python of an environment that holds that
library, so this file needs nothing but torch, numpy and the standard library:

    python saelens.py '{"architecture": "topk", "d": 768, "dict_size": 12288, "k": 32, "batch": 4096}'
"""

# B activations in a batch, D model width, F latents (dict_size), G ground-truth directions

import gc
import json
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

ARCHITECTURES = ("batchtopk", "topk", "jumprelu")
PRECISIONS = ("float32", "tf32", "bfloat16")
DISTINCT_BATCHES = 3  # the steps cycle through them
LR = 1e-6  # so small that the active latents stay the same
SILENCED = 0.01  # factor on the encoder weights of dead latents, which keeps them from ever being active
THRESHOLD_SAMPLE = 256  # activations from which thresholds are computed


@dataclass(frozen=True)
class Spec:
    """A measurement of training steps.

    dead: fraction of latents that the auxiliary loss counts as dead
    precision: of our encoder matmul (training.precision); the other libraries are timed in float32 only
    """

    architecture: str
    d: int
    dict_size: int
    k: int
    batch: int
    dead: float = 0.0
    steps: int = 3
    warmup: int = 1
    threads: int = 2
    device: str = "cpu"
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, not {self.architecture!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if not 0 <= self.dead < 1 or self.steps < 1 or self.warmup < 0:
            raise ValueError("dead must be in [0, 1), steps at least 1, warmup at least 0")


def parse_spec(argv: list[str], supported: tuple[str, ...] = ARCHITECTURES) -> Spec:
    """Parse the spec in argv[1], a JSON object, and set torch's threads and seed. Call it before any computation."""
    try:
        spec = Spec(**json.loads(argv[1]))
    except (IndexError, TypeError, ValueError) as error:
        raise SystemExit(f"{argv[0]} takes one argument, a JSON spec: {error}") from error
    if spec.architecture not in supported:
        raise SystemExit(f"{argv[0]} times only {', '.join(supported)}, not {spec.architecture}")
    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    return spec


def batches(spec: Spec) -> list[Tensor]:
    """Return DISTINCT_BATCHES batches (B, D) of synthetic activations: sparse sums of directions, and a little noise.

    Each activation has mean 0 and standard deviation 1.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    directions_GD = torch.randn(4 * spec.d, spec.d, generator=generator) / spec.d**0.5
    found = []
    for _ in range(DISTINCT_BATCHES):
        x_BD = (torch.randn(spec.batch, 4 * spec.d, generator=generator) - 2).relu_() @ directions_GD
        x_BD += 0.01 * torch.randn(spec.batch, spec.d, generator=generator)
        x_BD -= x_BD.mean(1, keepdim=True)
        x_BD /= x_BD.std(1, keepdim=True)
        found.append(x_BD.to(spec.device))
    return found


def dead_latents(spec: Spec) -> Tensor:
    """Return a random mask of dead latents, bool (F,), with exactly the fraction `spec.dead`."""
    order_F = torch.randperm(spec.dict_size, generator=torch.Generator().manual_seed(spec.seed + 1))
    return (order_F < round(spec.dead * spec.dict_size)).to(spec.device)


def threshold_for(l0: float, pre_BF: Tensor) -> float:
    """Return the threshold that `l0` pre-activations exceed on average. Shape: (B, F)."""
    kept = max(1, round(l0 * len(pre_BF)))
    return pre_BF.flatten().topk(kept, sorted=False).values.min().item()


class Memory:
    """Measures the peak of the memory in use, relative to the memory in use when this object was created.

    On a CUDA device this is torch's own count. Otherwise it is the resident memory of the process: the peak since
    `reset` on Linux, the peak since the start of the process on other systems.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        load_lazily(device)
        gc.collect()
        self._baseline = self._now()

    def _now(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except FileNotFoundError:
            return self._peak()
        return pages * resource.getpagesize()

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        try:
            status = Path("/proc/self/status").read_text()
        except FileNotFoundError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def reset(self) -> None:
        """Forget the peak so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM
        except OSError:
            print("the peak of the memory cannot be reset here: it covers the whole process", file=sys.stderr)

    def peak(self) -> int:
        """Return the bytes by which the peak since `reset` exceeds the memory in use when this object was created."""
        return self._peak() - self._baseline


def load_lazily(device: str) -> None:
    """Take one small step with Adam, so that torch loads its lazy libraries now, which take hundreds of MB."""
    layer = torch.nn.Linear(256, 256, device=device)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(256, 256, device=device)).sum().backward()
    optimizer.step()


def timed(
    step: Callable[[int], object], steps: int, warmup: int, device: str, memory: Memory | None = None
) -> list[float]:
    """Return the seconds of each of `steps` calls step(i), after `warmup` calls that are not timed.

    The result of a call is dropped at once. `memory` is reset between the warm-up and the timed calls.
    """
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds = []
    for index in range(warmup + steps):
        if index == warmup and memory is not None:
            memory.reset()
        synchronize()
        start = time.perf_counter()
        step(index)
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def bare_product(spec: Spec) -> list[float]:
    """Return the seconds of the encoder matmul x @ W alone, into new memory, `spec.steps` times."""
    x_BD = torch.randn(spec.batch, spec.d).to(spec.device)
    W_DF = torch.randn(spec.d, spec.dict_size).to(spec.device)
    return timed(lambda _: x_BD @ W_DF, spec.steps, spec.warmup, spec.device)


@dataclass(frozen=True)
class Subject:
    """A library's SAE and trainer, ready to be timed."""

    step: Callable[[Tensor], object]  # makes one training step on x_BD
    encode: Callable[[Tensor], Tensor]  # x_BD -> z_BF, zero for inactive latents, as in training
    dead: Callable[[], int]  # number of latents that the auxiliary loss counts as dead


def measure(spec: Spec, library: str, build: Callable[[Spec, Tensor], Subject]) -> None:
    """Time the steps of the subject that `build(spec, sample_BD)` returns, then the bare product; print the record."""
    x = batches(spec)
    memory = Memory(spec.device)
    subject = build(spec, x[0][:THRESHOLD_SAMPLE])
    step_seconds = timed(lambda i: subject.step(x[i % len(x)]), spec.steps, spec.warmup, spec.device, memory)
    peak_bytes = memory.peak()
    with torch.no_grad():
        l0 = mean_l0(subject.encode(x[(spec.warmup + spec.steps - 1) % len(x)]))
    emit(
        library=library,
        version=version(library),
        torch=torch.__version__,
        spec=asdict(spec),
        step_seconds=step_seconds,
        product_seconds=bare_product(spec),
        peak_bytes=peak_bytes,
        l0=l0,
        dead_latents=subject.dead(),
    )


def mean_l0(z_BF: Tensor) -> float:
    """Return the number of active latents per activation."""
    return (z_BF != 0).sum().item() / len(z_BF)


def emit(**fields: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(fields), flush=True)
