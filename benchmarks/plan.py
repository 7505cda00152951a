"""The plan of the benchmark: libraries, sizes, points of the sweeps, and the order of the measurements."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
OURS = "sae-sweeps"
ARCHITECTURES = ("batchtopk", "topk", "jumprelu")
DEAD = 0.3  # fraction of dead latents in the measurements with dead latents


@dataclass(frozen=True)
class Library:
    """A library whose training steps are timed."""

    name: str  # of the installed package
    script: str  # file in steps/
    environment: str | None  # folder of a virtual environment in the project; None: the one that runs this
    architectures: tuple[str, ...] = ARCHITECTURES

    @property
    def python(self) -> str:
        """Return the Python of the environment."""
        return str(PROJECT / self.environment / "bin" / "python") if self.environment else sys.executable

    @property
    def is_ready(self) -> bool:
        """Return whether `make bench` has set up the environment; it leaves a file `ready` there."""
        return self.environment is None or (PROJECT / self.environment / "ready").exists()


LIBRARIES = (
    Library(OURS, "ours.py", None),
    Library("sae-lens", "saelens.py", ".venv-saelens"),
    Library("dictionary-learning", "dictionary_learning_peer.py", ".venv-bench/dictionary-learning"),
    Library("eai-sparsify", "eai_sparsify.py", ".venv-bench/eai-sparsify", architectures=("topk",)),
)


@dataclass(frozen=True)
class Sizes:
    """The sizes of the timed steps and sweeps."""

    base: dict[str, int]  # sizes of a step; the other measurements change one of them
    axes: dict[str, tuple[int, ...]]  # size -> its other values
    cuda: tuple[dict[str, int], ...]  # on a CUDA device: changes to the base, one measurement each
    sweep_dict_sizes: tuple[int, int]  # dictionary sizes of the sweeps
    sweep_points: tuple[int, ...]  # number of points in each sweep
    sweep_settings: tuple[str, ...]  # settings of launch.py

    def compared(self, device: str, quick: bool) -> list[dict[str, int]]:
        """Return the sizes with a table of their own, which compares all libraries."""
        return [self.base | change for change in self.cuda] if device == "cuda" and not quick else [self.base]

    def points(self, device: str, quick: bool) -> Iterator[dict[str, Any]]:
        """Yield specs without an architecture, in the order in which they are measured."""
        compared = self.compared(device, quick)
        yield from compared
        yield self.base | {"dead": DEAD}
        for precision in ("tf32", "bfloat16") if device == "cuda" else ("bfloat16",):
            for sizes in compared:
                yield sizes | {"precision": precision}
        if device != "cuda" and not quick:
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
    # for testing the benchmark itself: the numbers mean nothing
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


def measurements(points: Iterator[dict[str, Any]]) -> Iterator[tuple[Library, dict[str, Any]]]:
    """Yield a library and a spec at a time. The libraries alternate, so that drifts of the machine affect all of them.

    JumpReLU is not measured with dead latents: no library has an auxiliary loss for it.
    """
    for point in points:
        for architecture in ARCHITECTURES:
            for library in LIBRARIES:
                is_supported = architecture in library.architectures
                has_precision = point.get("precision", "float32") == "float32" or library.name == OURS
                if is_supported and has_precision and not (architecture == "jumprelu" and point.get("dead")):
                    yield library, {"architecture": architecture, **point}


def sweep_points(dict_sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Return twelve points. The sweeps are the first 1, 3, 6 and 12 of them."""
    return [
        {"sae": architecture, "dict_size": dict_size, "seed": seed}
        for seed in (0, 1)
        for dict_size in dict_sizes
        for architecture in ARCHITECTURES
    ]
