"""Compares the error of SAEs trained by this project and by other libraries on the same activations in the same order.

    python benchmarks/quality.py                                     # the embedded model, two sizes, three values of k
    python benchmarks/quality.py --model smollm2-135m --dict-sizes 4608 --ks 32 --tokens 983040

Each library trains with its own trainer, in its environment (`make environments`), at its best learning rate: from the
best one of the SAE before, it tries the half and the double until neither is better. This project has one rate for all
of them, which follows the size. Every SAE that another library saves is loaded and measured by the same code as ours.
The results, in benchmarks/results/<machine>-quality-<model>.md and .json, are written after each SAE; the same command
trains only those that are not there yet. An hour for the embedded model.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import recipes
import torch
from pages import describe_run, find_results, format_origin, write_results
from plan import PROJECT
from processes import run
from safetensors.torch import save_file
from tables import NAMES, table
from torch import Tensor

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import Config
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.runtime.files import read_json
from sae_sweeps.saes import SAE
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer

OURS = "sae-sweeps"
TIMEOUT = 3600.0  # seconds per SAE
WORDS = """\
Each SAE was trained on the same {tokens:,} activations of `{model}` at `{hook}`, in the same order and steps of
{batch}, and measured on {held_out:,} held-out ones. Activations are normalised to mean 0 and standard deviation 1
before any library gets them. This project has the settings `{settings}` for all of its SAEs. The others have
their defaults but for the learning rate and its schedule, a warm-up of {warmup} steps and a linear fall to zero over
the rest, as here (signum, which averages weights, has no schedule); *rates* are those that were tried, by factors of
2, of which the best counts. What dictionary_learning starts after 1000 steps starts within these {steps}. NMSE, L0
and dead latents are those of SAEs as they are used for inference, computed by this project's code."""


@dataclass(frozen=True)
class Peer:
    """A library that trains SAEs."""

    name: str
    environment: str  # folder of its virtual environment in the project
    script: str  # in benchmarks/steps
    form: str  # of the folder that it saves, as `load_sae` names it
    architectures: tuple[str, ...]
    start: float  # the first learning rate to try, in training.base_lr's sense: at 16 384 latents
    optimizer: str = ""

    def train(self, spec: dict[str, Any], scratch: Path) -> SAE:
        """Return the SAE that it trains. Raises: SystemExit if it fails."""
        folder = scratch / "layers.0" / str(spec["number"])
        words = json.dumps(spec | {"folder": str(folder), "optimizer": self.optimizer})
        python, script = PROJECT / self.environment / "bin" / "python", PROJECT / "benchmarks" / "steps" / self.script
        ended = run([str(python), str(script), words], TIMEOUT)
        if ended.failure is not None:
            raise SystemExit(f"{self.name}: {ended.failure}: {ended.last_error_line}")
        return load_sae(f"{self.form}:{folder}")


TOPK = ("batchtopk", "topk")
LEARNED, SPARSIFY = "dictionary_learning_training.py", "eai_sparsify_training.py"
PEERS = (
    Peer("SAELens", ".venv-saelens", "saelens_training.py", "sae_lens", TOPK, 2e-3),
    Peer("dictionary_learning", ".venv-formats", LEARNED, "dictionary_learning", (*TOPK, "jumprelu"), 2e-3),
    Peer("sparsify, signum", ".venv-formats", SPARSIFY, "sparsify", ("topk",), 5e-3, "signum"),
    Peer("sparsify, adam", ".venv-formats", SPARSIFY, "sparsify", ("topk",), 2e-3, "adam"),
)


def normalize(x_AD: Tensor) -> Tensor:
    """Return activations (A, D) with mean 0 and standard deviation 1 each."""
    centered_AD = x_AD - x_AD.mean(1, keepdim=True)
    return centered_AD / centered_AD.std(1, keepdim=True)


@torch.no_grad()
def measure(sae: SAE, x_AD: Tensor) -> dict[str, float]:
    """Return NMSE, L0 and the share of dead latents on activations (A, D)."""
    error, active, fired_F = 0.0, 0, torch.zeros(sae.dict_size, dtype=torch.bool)
    for x_BD in x_AD.split(2048):
        error += ((x_BD - sae(x_BD)).square().sum(1) / x_BD.square().sum(1)).double().sum().item()
        is_active_BF = sae.encode(x_BD) != 0
        active += int(is_active_BF.sum())
        fired_F |= is_active_BF.any(0)
    return {"nmse": error / len(x_AD), "l0": active / len(x_AD), "dead": 1 - fired_F.float().mean().item()}


def train_ours(config: Config, chunks: Sequence[Tensor]) -> SAE:
    """Return the SAE of this configuration, trained on the chunks (A, D)."""
    trainer = Trainer(build_sae(config, chunks[0].shape[1]), config.training)
    while not trainer.finished:
        for _ in trainer.steps(chunks[trainer.tokens_done // recipes.chunk_size(config)]):
            pass
    return trainer.sae.for_inference()


def search_rates(start: float, measure_at: Callable[[float], float]) -> float:
    """Return the learning rate whose error is least among those by factors of 2 around it. The first is `start`."""
    errors = {start: measure_at(start)}
    while True:
        best = min(errors, key=errors.__getitem__)
        untried = [rate for rate in (best / 2, best * 2) if rate not in errors]
        if not untried:
            return best
        errors[untried[0]] = measure_at(untried[0])


class Comparison:
    """The SAEs that were trained so far, and what trains the next one."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        """Read the activations, and what an earlier call of the same command has measured."""
        self.args, self.scratch = args, scratch
        first = self.compose(args.architectures[0], args.dict_sizes[0], args.ks[0])
        source = ActivationSource(first, torch.device("cpu"))
        self.chunks = [normalize(chunk_AD) for chunk_AD in recipes.read_chunks(source, first, args.tokens)]
        self.held_out_AD = normalize(source.held_out(args.held_out).acts_AD.float())
        self.training = first.training
        save_file({"x": torch.cat(self.chunks)[: self.training.steps * self.training.batch_size]}, self.activations)
        names = ("model", "tokens", "held_out", "settings", "seed")
        settings = {name: getattr(args, name) for name in names} | {"hook": first.model.hook}
        self.data = describe_run(args.threads) | {"settings": settings, "rows": []}
        before = find_results(args.results, f"quality-{args.model}", self.data)
        if before.exists() and (found := read_json(before))["settings"] == settings:
            self.data = found

    @property
    def activations(self) -> Path:
        """Return the file of the activations."""
        return self.scratch / "activations.safetensors"

    def compose(self, architecture: str, dict_size: int, k: int) -> Config:
        """Return the configuration of this project's SAE."""
        args = self.args
        size = [f"model={args.model}", f"sae={architecture}", f"dict_size={dict_size}", f"k={k}", f"seed={args.seed}"]
        words = [*size, *args.settings.split(), f"training.tokens={args.tokens}", "sae.normalize_input=false"]
        batch = recipes.compose_run(words).training.batch_size
        return recipes.compose_run([*words, f"training.chunk_batches={recipes.CHUNK // batch}"])

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """Return the row of an SAE; None if it is not trained."""
        return next((row for row in self.data["rows"] if key.items() <= row.items()), None)

    def add(self, key: dict[str, Any], train: Callable[[], SAE]) -> dict[str, Any]:
        """Return the row of an SAE, which is trained if it is not there yet."""
        row = self.find(key)
        if row is None:
            row = key | measure(train(), self.held_out_AD)
            self.data["rows"].append(row)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            write_results(self.args.results, f"quality-{self.args.model}", self.data, format_page(self))
        return row

    def compare(self, architecture: str, dict_size: int, k: int, starts: dict[tuple[str, str], float]) -> None:
        """Train the SAEs of one architecture and size. `starts`: the best rates of peers so far, which it updates"""
        config = self.compose(architecture, dict_size, k)
        key = {"architecture": architecture, "dict_size": dict_size, "k": k}
        self.add(key | {"library": OURS}, lambda: train_ours(config, self.chunks))
        for peer in PEERS:
            if architecture not in peer.architectures or peer.name not in self.args.peers:
                continue

            def error_at(base: float, peer: Peer = peer) -> float:
                spec = self.make_spec(key, base)
                named = key | {"library": peer.name, "base_lr": base}
                nmse = self.add(named, lambda: peer.train(spec, self.scratch))["nmse"]
                return nmse if math.isfinite(nmse) else math.inf

            start = starts.get((peer.name, architecture), peer.start)
            starts[peer.name, architecture] = search_rates(start, error_at)

    def make_spec(self, key: dict[str, Any], base: float) -> dict[str, Any]:
        """Return what the script of a peer reads. `base`: the learning rate at 16 384 latents"""
        training = self.training
        return key | {
            "number": len(self.data["rows"]),
            "d": self.held_out_AD.shape[1],
            "activations": str(self.activations),
            "batch": training.batch_size,
            "steps": training.steps,
            "lr": base * math.sqrt(16384 / key["dict_size"]),
            "warmup_steps": training.warmup_steps,
            "decay_steps": training.steps - training.warmup_steps - 1,
            "seed": self.args.seed,
            "threads": self.args.threads,
        }


def list_cells(rows: Sequence[dict[str, Any]], key: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the lines of a table: each library's best SAE of one architecture, size and k."""
    found = [row for row in rows if key.items() <= row.items()]
    for library in dict.fromkeys(row["library"] for row in found):
        own = [row for row in found if row["library"] == library]
        best = min(own, key=lambda row: row["nmse"])
        rates = [row["base_lr"] * math.sqrt(16384 / row["dict_size"]) for row in own if "base_lr" in row]
        tried = f"{min(rates):.2g} to {max(rates):.2g}" if rates else ""
        rate = f"{best['base_lr'] * math.sqrt(16384 / best['dict_size']):.2g}" if rates else ""
        size = [NAMES[best["architecture"]], str(best["dict_size"]), str(best["k"]), library]
        dead = f"{best['dead']:.1%}".replace("%", " %")
        yield [*size, f"{best['nmse']:.4f}", f"{best['l0']:.1f}", dead, rate, tried]


def format_page(comparison: Comparison) -> str:
    """Return the results as a Markdown page."""
    data, training = comparison.data, comparison.training
    words = WORDS.format(
        **{**data["settings"], "held_out": len(comparison.held_out_AD)},
        batch=training.batch_size,
        warmup=training.warmup_steps,
        steps=training.steps,
    )
    names = ("architecture", "dict_size", "k")
    keys = sorted({tuple(row[name] for name in names) for row in data["rows"]})
    lines = [cells for key in keys for cells in list_cells(data["rows"], dict(zip(names, key, strict=True)))]
    header = ["SAE", "latents", "k", "trained by", "NMSE", "L0", "dead latents", "rate", "rates"]
    title = f"# Errors of SAEs that several libraries trained, on {data['machine']['name']}"
    return "\n\n".join([title, format_origin(data), words, table(header, lines, words=4)])


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="a model of conf/model")
    parser.add_argument("--architectures", nargs="+", default=[*TOPK, "jumprelu"], help="names in conf/sae")
    parser.add_argument("--dict-sizes", nargs="+", type=int, default=[3072, 6144], help="latents")
    parser.add_argument("--ks", nargs="+", type=int, default=[32, 16, 64], help="active latents per activation")
    parser.add_argument("--tokens", type=int, default=327_680, help="activations to train on")
    parser.add_argument("--held-out", type=int, default=32_768, help="held-out activations")
    parser.add_argument("--settings", default="training=efficient training.base_lr=5.2e-3", help="of this project")
    parser.add_argument("--peers", nargs="+", default=[peer.name for peer in PEERS], help="the other libraries")
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation")
    parser.add_argument("--threads", type=int, default=machine.count_cores(), help="of torch")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results", help="their folder")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    starts: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(args, Path(scratch))
        for k in args.ks:
            for dict_size in args.dict_sizes:
                for architecture in args.architectures:
                    comparison.compare(architecture, dict_size, k, starts)


if __name__ == "__main__":
    main()
