"""Compares recipes of training: what error SAEs reach with which settings, after how many tokens and seconds.

    python benchmarks/recipes.py                                  # the embedded model, README's setting
    python benchmarks/recipes.py --recipes before efficient --architectures topk --seeds 0 1 2
    python benchmarks/recipes.py --add 'mine: training.lr=3e-3 training.betas=[0.8,0.99]' --recipes before mine
    python benchmarks/recipes.py --model smollm2-135m --dict-sizes 4608 --tokens 983040

The language model runs once; its activations are kept in memory, in the order of chunks that the command has, and every
SAE is trained on them. So an SAE is the one that the command in its row trains. `--list` prints the recipes. Leave
the machine alone meanwhile if the seconds matter. The table and its numbers are written to benchmarks/results/, in
<machine>-recipes-<model>.md and .json.
"""

import argparse
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch
from hydra import compose, initialize_config_dir
from pages import describe_run, format_origin, write_results
from plan import ARCHITECTURES, PROJECT
from tables import NAMES, table
from torch import Tensor

from sae_sweeps.activations.held_out import HeldOut
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.cli import app  # noqa: F401  registers schemas and resolvers
from sae_sweeps.config import Config, to_config
from sae_sweeps.config.validation import find_problems
from sae_sweeps.evaluation.reconstruction import reconstruct
from sae_sweeps.tasks.point import build_sae
from sae_sweeps.training.trainer import Trainer

CHUNK = 32_768  # activations in a chunk, for every batch size, unless recipes keep their own
SAMPLE = 4096  # held-out activations that are measured during training
BEFORE = (
    "training=quick training.batch_size=1024 training.lr=4e-3 training.betas=[0.9,0.99] training.warmup_steps=40 "
    "training.decay_fraction=0.3"
)
EFFICIENT = "training=efficient training.base_lr=5e-3"  # the rate for 327 680 tokens
# name -> settings. Each changes one thing of `before`, or of `efficient`
RECIPES = {
    "before": BEFORE,
    "quick": "training=quick",
    "paper": "training=paper",
    **{f"before-lr-{lr}": f"{BEFORE} training.lr={lr}" for lr in ("2e-3", "6e-3", "8e-3")},
    "before-data": f"{BEFORE} training.initial_weights=data",
    "before-betas": f"{BEFORE} training.betas=[0.8,0.99]",
    "before-decay-all": f"{BEFORE} training.decay_fraction=1",
    "before-batch-256": f"{BEFORE} training.batch_size=256 training.warmup_steps=160",
    "efficient": EFFICIENT,
    **{f"efficient-{lr}": f"{EFFICIENT} training.base_lr={lr}" for lr in ("2.5e-3", "3.5e-3", "7e-3", "1e-2")},
    "efficient-random": f"{EFFICIENT} training.initial_weights=random",
    **{f"efficient-beta-{beta}": f"{EFFICIENT} training.betas=[{beta},0.99]" for beta in ("0.9", "0.5")},
    "efficient-beta2-0.95": f"{EFFICIENT} training.betas=[0.8,0.95]",
    "efficient-warmup-16": f"{EFFICIENT} training.warmup_steps=16",
    "efficient-decay-0.3": f"{EFFICIENT} training.decay_fraction=0.3",
    "efficient-batch-512": f"{EFFICIENT} training.batch_size=512 training.warmup_steps=80",
    "efficient-batch-256": f"{EFFICIENT} training.batch_size=256 training.warmup_steps=160",
}
WORDS = """\
SAEs on `{model}` at `{hook}`, k {k}; each row is the mean of its seeds. All have the same activations in the same
order{order}. NMSE, L0 and dead latents are of {held_out:,} held-out activations, as in the
README; *tokens to* is where the error of {sample:,} of them, measured after each chunk, first falls below a
level (with a rate that falls to zero at the end, a shorter training of its own would reach it earlier).{seconds} ± is
the standard deviation over seeds."""
SECONDS = " Seconds are of\nthe steps alone, on {threads} threads."


@dataclass(frozen=True)
class Run:
    """An SAE to train: its recipe, and the rest of its settings."""

    recipe: str
    architecture: str
    dict_size: int
    tokens: int
    seed: int
    words: tuple[str, ...]  # all its settings, as the command takes them

    @property
    def command(self) -> str:
        """Return the command that trains the same SAE."""
        return f"python launch.py {' '.join(self.words)}"


def list_runs(args: argparse.Namespace, recipes: dict[str, str]) -> Iterator[Run]:
    """Yield the SAEs in the order in which they are trained: all recipes of a seed side by side."""
    for seed in args.seeds:
        for tokens in args.tokens:
            for dict_size in args.dict_sizes:
                for architecture in args.architectures:
                    for name, settings in recipes.items():
                        size = [f"sae={architecture}", f"dict_size={dict_size}", f"k={args.k}", f"seed={seed}"]
                        words = keep_last(
                            [f"model={args.model}", *size, *settings.split(), f"training.tokens={tokens}"]
                        )
                        if not args.own_chunks:
                            words.append(f"training.chunk_batches={CHUNK // compose_run(words).training.batch_size}")
                        yield Run(name, architecture, dict_size, tokens, seed, tuple(words))


def keep_last(words: Iterable[str]) -> list[str]:
    """Return settings without those that a later word gives again."""
    return list({word.partition("=")[0]: word for word in words}.values())


def compose_run(words: Iterable[str]) -> Config:
    """Return the configuration of a command. Raises: SystemExit for settings that cannot work."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = to_config(compose("config", overrides=list(words)))
    for problem in find_problems(config):
        raise SystemExit(str(problem))
    return config


def chunk_size(config: Config) -> int:
    """Return the number of activations in a chunk."""
    return config.training.batch_size * config.training.chunk_batches


def read_chunks(source: ActivationSource, config: Config, tokens: int) -> list[Tensor]:
    """Return the chunks of activations (A, D) that hold the first `tokens` activations of the training text."""
    stream = source.stream(config)
    count = -(-tokens // stream.chunk_size)
    return [stream.chunk(index) for index in range(count)]


def train_run(run: Run, chunks: Sequence[Tensor], held_out: HeldOut, source: ActivationSource, ce: bool) -> dict:
    """Train the SAE of a run, and return its row: metrics, curve and seconds.

    The curve has the number of tokens, the error of a held-out sample, and the share of dead latents.
    """
    config, acts_AD = compose_run(run.words), held_out.acts_AD.float()
    trainer = Trainer(build_sae(config, acts_AD.shape[1]), config.training)
    seconds, curve = 0.0, []
    while not trainer.finished:
        began = time.perf_counter()
        for _ in trainer.steps(chunks[trainer.tokens_done // chunk_size(config)]):
            pass
        seconds += time.perf_counter() - began
        sample = reconstruct(trainer.sae.for_inference(), acts_AD[:SAMPLE])
        curve.append([trainer.tokens_done, sample.nmse, trainer.dead_F.float().mean().item()])
    sae = trainer.sae.for_inference()
    found = reconstruct(sae, acts_AD)
    row = {
        **{name: getattr(run, name) for name in ("recipe", "architecture", "dict_size", "tokens", "seed", "command")},
        "nmse": found.nmse,
        "l0": found.l0,
        "dead": 1 - found.fired_F.float().mean().item(),
        "seconds": seconds,
        "curve": curve,
    }
    if ce:
        row["ce"] = held_out.compare(source.model, [found.recon_AD])[0].cross_entropy - held_out.ce
    return row


def tokens_to(curve: Sequence[Sequence[float]], level: float) -> float:
    """Return the tokens at which the error of a curve first falls to a level, between measurements; inf if never.

    curve: lines of tokens, error and share of dead latents
    """
    before: Sequence[float] | None = None
    for line in curve:
        if line[1] <= level:
            if before is None or before[1] == line[1]:
                return line[0]
            share = (before[1] - level) / (before[1] - line[1])
            return before[0] + share * (line[0] - before[0])
        before = line
    return math.inf


def average(rows: Sequence[dict[str, Any]], levels: Sequence[float]) -> list[str]:
    """Return the cells of one recipe, from its rows with several seeds."""
    nmse = [row["nmse"] for row in rows]
    spread = f" ± {statistics.stdev(nmse):.4f}" if len(nmse) > 1 else ""
    cells = [rows[0]["recipe"], f"{statistics.mean(nmse):.4f}{spread}"]
    cells.append(f"{statistics.mean(row['dead'] for row in rows):.1%}".replace("%", " %"))
    cells.append(f"{statistics.mean(row['l0'] for row in rows):.1f}")
    if "ce" in rows[0]:
        cells.append(f"{statistics.mean(row['ce'] for row in rows):.4f}")
    for level in levels:
        reached = statistics.mean(tokens_to(row["curve"], level) for row in rows)
        cells.append(f"{reached:,.0f}" if math.isfinite(reached) else "")
    return [*cells, f"{statistics.median(row['seconds'] for row in rows):.1f}"] if "seconds" in rows[0] else cells


def format_page(data: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    rows = data["rows"]
    settings = dict(data["settings"])
    own = ", shuffled in the chunks of their recipes"
    settings["order"] = f" of chunks ({settings['chunk']:,} activations)" if settings["chunk"] else own
    settings["seconds"] = SECONDS.format(threads=data["threads"]) if "seconds" in rows[0] else ""
    parts = [
        f"# Recipes of training on {data['machine']['name']}",
        format_origin(data),
        WORDS.format(**settings),
        table(["recipe", "settings"], [[name, f"`{words}`"] for name, words in data["recipes"].items()], words=2),
    ]
    levels = data["levels"]
    ce = ["CE degradation"] if "ce" in rows[0] else []
    header = ["recipe", "NMSE", "dead latents", "L0", *ce, *(f"tokens to {level:g}" for level in levels)]
    header += ["seconds"] if "seconds" in rows[0] else []
    for group in sorted({(row["architecture"], row["dict_size"], row["tokens"]) for row in rows}):
        here = [row for row in rows if (row["architecture"], row["dict_size"], row["tokens"]) == group]
        seeds = len({row["seed"] for row in here})
        name = NAMES.get(group[0], group[0])
        parts.append(f"## {name}, {group[1]} latents, {group[2]:,} tokens, {seeds} seed{'s' if seeds > 1 else ''}")
        by_recipe = [[row for row in here if row["recipe"] == recipe] for recipe in data["recipes"]]
        parts.append(table(header, [average(found, levels) for found in by_recipe if found]))
    commands = table(
        ["SAE", "NMSE", "command"], [[row["name"], f"{row['nmse']:.5f}", f"`{row['command']}`"] for row in rows]
    )
    return "\n\n".join([*parts, "## Commands", "Each trains one of these SAEs.", commands])


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="a model of conf/model")
    parser.add_argument("--recipes", nargs="+", help="names of recipes (default: all but paper)")
    parser.add_argument("--add", action="append", default=[], metavar="'NAME: SETTINGS'", help="a recipe of your own")
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), help="names in conf/sae")
    parser.add_argument("--dict-sizes", nargs="+", type=int, default=[3072, 6144], help="latents")
    parser.add_argument("--k", type=int, default=32, help="active latents per activation")
    parser.add_argument("--tokens", nargs="+", type=int, default=[327_680], help="activations to train on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the initialisation")
    parser.add_argument("--levels", nargs="+", type=float, default=[0.08, 0.07], help="NMSE to reach")
    parser.add_argument("--held-out", type=int, default=32_768, help="held-out activations")
    parser.add_argument("--ce", action="store_true", help="also measure CE degradation, which runs the language model")
    parser.add_argument("--threads", type=int, default=machine.count_cores(), help="of torch")
    parser.add_argument("--own-chunks", action="store_true", help="keep the chunks of each recipe; more memory")
    parser.add_argument("--busy", action="store_true", help="the machine has other work: leave the seconds out")
    parser.add_argument("--name", default="", help="added to the name of the results")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results", help="their folder")
    parser.add_argument("--list", action="store_true", help="print the recipes, and train nothing")
    return parser.parse_args()


def choose_recipes(args: argparse.Namespace) -> dict[str, str]:
    """Return the chosen recipes, name -> settings. Raises: SystemExit if there is no recipe of a name."""
    known = RECIPES | {name.strip(): words.strip() for name, _, words in (text.partition(":") for text in args.add)}
    names = args.recipes or [name for name in known if name != "paper"]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no recipe is called {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in names}


def main() -> None:
    """Run the command."""
    args = parse_arguments()
    recipes = choose_recipes(args)
    if args.list:
        print("\n".join(f"{name}: {words}" for name, words in recipes.items()))
        return
    torch.set_num_threads(args.threads)
    data = describe_run(args.threads)
    runs = list(list_runs(args, recipes))
    first = compose_run(runs[0].words)
    source = ActivationSource(first, torch.device("cpu"))
    configs = [compose_run(run.words) for run in runs]
    chunks = {
        size: read_chunks(source, config, max(args.tokens))
        for size, config in {chunk_size(config): config for config in configs}.items()
    }
    held_out = source.held_out(args.held_out)
    settings = {"model": args.model, "hook": first.model.hook, "k": args.k, "chunk": 0 if args.own_chunks else CHUNK}
    settings |= {"held_out": len(held_out.acts_AD), "sample": SAMPLE}
    data |= {"settings": settings, "levels": args.levels, "recipes": recipes, "rows": []}
    for number, (run, config) in enumerate(zip(runs, configs, strict=True), start=1):
        name = f"{run.recipe}, {run.architecture} {run.dict_size}, seed {run.seed}, {run.tokens:,} tokens"
        found = {"name": name, **train_run(run, chunks[chunk_size(config)], held_out, source, args.ce)}
        if args.busy:
            del found["seconds"]
        data["rows"].append(found)
        print(f"{number} of {len(runs)}: {name}: {found['nmse']:.4f}, {found['dead']:.1%} dead", flush=True)
        # after each SAE, so that what is measured is kept
        write_results(args.results, f"recipes-{args.model}{args.name and '-'}{args.name}", data, format_page(data))


if __name__ == "__main__":
    main()
