"""What is measured, and in what order: libraries, sizes, the points of the sweeps."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
OURS = "sae-sweeps"
ARCHITECTURES = ("batchtopk", "topk", "jumprelu")
DEAD = 0.3  # the share of dead latents where there are any


@dataclass(frozen=True)
class Library:
    name: str  # as it is installed
    script: str  # in steps/
    environment: str | None  # a folder in the project; None: the environment that runs this
    architectures: tuple[str, ...] = ARCHITECTURES
    on_cuda: bool = True

    @property
    def python(self) -> str:
        return str(PROJECT / self.environment / "bin" / "python") if self.environment else sys.executable

    @property
    def ready(self) -> bool:
        """Whether `make bench` got its environment; it marks those that it did."""
        return self.environment is None or (PROJECT / self.environment / "ready").exists()


LIBRARIES = (
    Library(OURS, "ours.py", None),
    Library("sae-lens", "saelens.py", ".venv-saelens"),
    Library("dictionary-learning", "dictionary_learning_peer.py", ".venv-bench/dictionary-learning", on_cuda=False),
    Library("eai-sparsify", "eai_sparsify.py", ".venv-bench/eai-sparsify", architectures=("topk",)),
)


@dataclass(frozen=True)
class Sizes:
    base: dict[str, int]  # the sizes of a step, of which the others differ in one
    axes: dict[str, tuple[int, ...]]  # what each size is varied over, beside its base
    cuda: tuple[dict[str, int], ...]  # what differs from the base, on a CUDA device
    sweep_dict_sizes: tuple[int, int]
    sweep_points: tuple[int, ...]
    sweep_settings: tuple[str, ...]

    def compared(self, device: str, quick: bool) -> list[dict[str, int]]:
        """The sizes at which all libraries stand side by side in a table of their own."""
        return [self.base | change for change in self.cuda] if device == "cuda" and not quick else [self.base]

    def points(self, device: str, quick: bool) -> Iterator[dict[str, Any]]:
        """Specs that lack only the architecture, in the order in which they are measured."""
        compared = self.compared(device, quick)
        yield from compared
        yield self.base | {"dead": DEAD}
        if quick:
            return
        for precision in ("tf32", "bfloat16") if device == "cuda" else ("bfloat16",):
            for sizes in compared:
                yield sizes | {"precision": precision}
        if device != "cuda":
            for axis, values in self.axes.items():
                for value in values:
                    yield self.base | {axis: value}


SIZES = {
    "full": Sizes(
        base={"d": 768, "dict_size": 12288, "k": 32, "batch": 4096},
        axes={"dict_size": (3072, 6144, 24576), "k": (16, 64), "batch": (1024, 8192)},
        cuda=({}, {"batch": 16384}, {"dict_size": 24576}, {"dict_size": 24576, "batch": 16384}),
        sweep_dict_sizes=(3072, 6144),
        sweep_points=(1, 3, 6, 12),
        sweep_settings=("training.tokens=131072",),
    ),
    # to try the benchmark itself: its numbers mean nothing
    "tiny": Sizes(
        base={"d": 32, "dict_size": 256, "k": 4, "batch": 128},
        axes={"dict_size": (512,), "k": (8,), "batch": (256,)},
        cuda=({}, {"batch": 256}),
        sweep_dict_sizes=(128, 256),
        sweep_points=(1, 3),
        sweep_settings=(
            "training.tokens=1024",
            "training.batch_size=256",
            "training.chunk_batches=2",
            "training.warmup_steps=1",
            "evaluation.tokens=256",
        ),
    ),
}


def measurements(points: Iterator[dict[str, Any]], device: str) -> Iterator[tuple[Library, dict[str, Any]]]:
    """A library and a spec at a time, such that the libraries alternate.

    JumpReLU is left out where latents are dead: no library has an auxiliary loss there.
    """
    for point in points:
        for architecture in ARCHITECTURES:
            for library in LIBRARIES:
                exists = architecture in library.architectures and (library.on_cuda or device != "cuda")
                asked = point.get("precision", "float32") == "float32" or library.name == OURS
                if exists and asked and not (architecture == "jumprelu" and point.get("dead")):
                    yield library, {"architecture": architecture, **point}


def sweep_points(dict_sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Twelve points: the first 1, 3, 6 and 12 of them are the sweeps."""
    return [
        {"sae": architecture, "dict_size": dict_size, "seed": seed}
        for seed in (0, 1)
        for dict_size in dict_sizes
        for architecture in ARCHITECTURES
    ]
