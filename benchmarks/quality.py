"""Compares the quality of SAEs trained by this project and by SAELens on the same activations in the same order.

    python benchmarks/quality.py model=smollm2-135m model.name=FOLDER    # and any other setting of launch.py

SAELens' own trainer runs in `.venv-saelens` (`make .venv-saelens/ready`), at several learning rates. The SAEs that it
saves are loaded and evaluated on held-out activations by the same code as ours. Results: results/<machine>-quality.md
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import torch
from hydra import compose, initialize_config_dir
from plan import PROJECT
from processes import run
from safetensors.torch import save_file
from tables import NAMES, table
from torch import Tensor

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.cli import app  # noqa: F401  registers schemas and resolvers
from sae_sweeps.config import Config, to_config
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.runtime.files import write_json, write_text
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import SAE
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer, train

RESULTS = PROJECT / "benchmarks" / "results"
PYTHON, SCRIPT = PROJECT / ".venv-saelens" / "bin" / "python", PROJECT / "benchmarks" / "steps" / "saelens_training.py"
TIMEOUT = 3600.0  # seconds per SAE

WORDS = """\
Each SAE was trained on the same {tokens:,} activations of {model} at `{hook}`, in the same order and batches of
{batch}, and evaluated on {held_out:,} held-out ones. Activations are normalised to mean 0 and standard deviation 1
before both libraries get them. SAELens ran with its defaults except for the learning rate and its schedule; *schedule
as ours* is {lr:g} after {warmup} steps of warm-up, and a linear fall to zero over the last {decay:.0%}. This
project's code computed NMSE and L0 of all SAEs, as they are used for inference."""


def normalize(x_AD: Tensor) -> Tensor:
    """Return activations (A, D) with mean 0 and standard deviation 1 each."""
    centered_AD = x_AD - x_AD.mean(1, keepdim=True)
    return centered_AD / centered_AD.std(1, keepdim=True)


class ChunkList:
    """An activation stream over a list of chunks (A, D)."""

    def __init__(self, chunks: list[Tensor]) -> None:
        self.chunks, self.chunk_size = chunks, len(chunks[0])

    def chunk(self, index: int) -> Tensor:
        """Return chunk `index`, (A, D)."""
        return self.chunks[index]


@torch.no_grad()
def measure(sae: SAE, x_AD: Tensor) -> dict[str, float]:
    """Return NMSE and L0 on activations (A, D)."""
    error, active = 0.0, 0
    for x_BD in x_AD.split(2048):
        error += ((x_BD - sae(x_BD)).square().sum(1) / x_BD.square().sum(1)).double().sum().item()
        active += int((sae.encode(x_BD) != 0).sum())
    return {"nmse": error / len(x_AD), "l0": active / len(x_AD)}


def train_ours(config: Config, stream: ChunkList) -> SAE:
    """Return an SAE that this project trained on the stream."""
    trainer = Trainer(build_sae(config, stream.chunks[0].shape[1]), config.training)
    for _, steps in train([trainer], stream):
        for _ in steps:
            pass
    return trainer.sae


def train_with_saelens(config: Config, file: Path, folder: Path, lr: float, scheduled: bool) -> SAE:
    """Return an SAE that SAELens trained on the activations in `file`. `scheduled`: with our learning-rate schedule."""
    steps = config.training.steps
    spec = {
        "architecture": config.sae.architecture,
        "k": config.k,
        "dict_size": config.dict_size,
        "activations": str(file),
        "batch": config.training.batch_size,
        "lr": lr,
        "warmup_steps": config.training.warmup_steps if scheduled else 0,
        "decay_steps": round(config.training.decay_fraction * steps) if scheduled else 0,
        "folder": str(folder),
        "seed": config.seed,
    }
    ended = run([str(PYTHON), str(SCRIPT), json.dumps(spec)], TIMEOUT)
    if ended.failure is not None:
        raise SystemExit(f"SAELens: {ended.failure}: {ended.last_error_line}")
    return load_sae(f"sae_lens:{folder}")


def format_page(config: Config, rows: list[dict[str, Any]], held_out: int) -> str:
    """Return the results as a Markdown page. `held_out`: number of held-out activations."""
    training = config.training
    words = WORDS.format(
        tokens=training.steps * training.batch_size,
        model=Path(config.model.name).name,
        hook=config.model.hook,
        batch=training.batch_size,
        held_out=held_out,
        lr=training.peak_lr(config.dict_size),
        warmup=training.warmup_steps,
        decay=training.decay_fraction,
    )
    lines = [[NAMES[row["architecture"]], row["trained by"], f"{row['nmse']:.4f}", f"{row['l0']:.1f}"] for row in rows]
    title = f"# Quality at equal tokens: {config.dict_size} latents, k = {config.k}"
    return f"{title}\n\n{words}\n\n{table(['', 'trained by', 'NMSE', 'L0'], lines, words=2)}\n"


def main(overrides: list[str]) -> None:
    """Train, evaluate and write the results. `overrides`: settings of launch.py."""
    if {"-h", "--help"} & set(overrides):
        print(__doc__)
        return
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        configs = {
            name: to_config(compose("config", overrides=[*overrides, f"sae={name}", "sae.normalize_input=false"]))
            for name in ("batchtopk", "topk")
        }
    first = configs["batchtopk"]
    training = first.training
    inputs = ActivationSource(first, torch.device("cpu"))
    stream = inputs.stream(first)
    count = -(-training.steps // training.chunk_batches)
    chunks = []
    for index in range(count):
        chunks.append(normalize(stream.chunk(index)))
        print(f"{index + 1} of {count} chunks of {stream.chunk_size:,} activations", flush=True)
    held_out_AD = normalize(torch.cat([x_BD for _, x_BD in inputs.held_out_text(first.evaluation.tokens)]))

    rows: list[dict[str, Any]] = []

    def note(architecture: str, library: str, sae: SAE) -> None:
        rows.append({"architecture": architecture, "trained by": library, **measure(sae, held_out_AD)})
        print(json.dumps(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "activations.safetensors"
        save_file({"x": torch.cat(chunks)[: training.steps * training.batch_size]}, file)
        for name, config in configs.items():
            note(name, "sae-sweeps", train_ours(config, ChunkList(chunks)))
            for lr, scheduled in ((3e-4, False), (1e-3, True), (training.peak_lr(first.dict_size), True)):
                library = f"SAELens, lr {lr:g}" + (", schedule as ours" if scheduled else ", its default")
                note(name, library, train_with_saelens(config, file, Path(scratch) / f"{name}-{lr}", lr, scheduled))

    about = machine.describe("cpu")
    slug = re.sub(r"[^a-z0-9]+", "-", f"{about['name']} {about['cores']} cores".lower()).strip("-")
    write_json(RESULTS / f"{slug}-quality.json", {"machine": about, "rows": rows, "provenance": provenance()})
    page = format_page(first, rows, len(held_out_AD))
    write_text(RESULTS / f"{slug}-quality.md", page)
    print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
