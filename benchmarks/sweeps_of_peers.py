"""Times whole sweeps of this project beside those of libraries that train several SAEs on one pass of the model.

    make bench-sweeps      # prepares the environments, then runs this: half an hour on two cores

SAELens' MultiSAETrainingRunner, and dictionary_learning's trainSAE, with the same model, text, tokens, batch and sizes.
Ours also evaluates and saves every SAE; the others train only. Leave the machine alone meanwhile.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import machine
from pages import describe_run, format_origin, write_results
from plan import ARCHITECTURES, LIBRARIES, OURS, PROJECT, Library
from processes import Ended, run
from tables import table

SCRIPTS = {"sae-lens": "saelens_sweep.py", "dictionary-learning": "dictionary_learning_sweep.py"}
HOOK = "blocks.3.hook_resid_pre"
HOOKS = [f"blocks.{layer}.hook_resid_pre" for layer in (1, 2, 3, 4)]
WIDTH, SEQ_LEN, BATCH, K, LR = 192, 128, 1024, 32, 4e-3
WORDS = """\
The embedded model and text, {tokens:,} activations for each SAE, batch {batch}, k {k}. Points are the first of
BatchTopK, TopK and JumpReLU x {small} and {large} latents x two seeds; with four hooks, three SAEs of {small} at each.
Times are of the whole process, from its start to its end, and peaks of its memory. In brackets, divided by ours.
**Ours also evaluates every SAE** on {evaluated:,} held-out activations (NMSE, CE and KL, twice) and saves
checkpoints and results; *training alone* is its time without the evaluation."""


def list_sweeps(small: int, large: int) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each sweep by its name."""
    points = [
        {"sae": architecture, "dict_size": size, "seed": seed, "hook": HOOK}
        for seed in (0, 1)
        for size in (small, large)
        for architecture in ARCHITECTURES
    ]
    layers = [{"sae": name, "dict_size": small, "seed": 0, "hook": hook} for hook in HOOKS for name in ARCHITECTURES]
    return {"1 point": points[:1], "6 points": points[:6], "12 points": points, "4 hooks x 3": layers}


def run_ours(points: list[dict[str, Any]], tokens: int, evaluated: int, threads: int, timeout: float) -> Ended:
    """Run the points as one command of this project."""
    keys = {"sae": "sae", "dict_size": "dict_size", "seed": "seed", "hook": "model.hook"}
    swept = [
        f"{setting}={','.join(dict.fromkeys(str(point[key]) for point in points))}" for key, setting in keys.items()
    ]
    training = [f"training.tokens={tokens}", f"training.batch_size={BATCH}", f"training.lr={LR}", f"k={K}"]
    with tempfile.TemporaryDirectory() as folder:
        settings = [*training, f"evaluation.tokens={evaluated}", "tracking=off", f"output_root={folder}", "device=cpu"]
        command = [LIBRARIES[0].python, str(PROJECT / "launch.py"), "-m", *swept, *settings]
        return run(command, timeout, {"OMP_NUM_THREADS": str(threads)})


def run_peer(library: Library, points: list[dict[str, Any]], tokens: int, threads: int, timeout: float) -> Ended:
    """Run the points in another library, in its environment."""
    (text,) = (PROJECT / "embedded" / "text").glob("*.jsonl.gz")
    spec = {"model": str(PROJECT / "embedded" / "model"), "text": str(text), "points": points, "threads": threads}
    spec |= {"width": WIDTH, "k": K, "tokens": tokens, "batch": BATCH, "seq_len": SEQ_LEN, "lr": LR}
    script = PROJECT / "benchmarks" / "peer_sweeps" / SCRIPTS[library.name]
    return run([library.python, str(script), json.dumps(spec)], timeout, {"OMP_NUM_THREADS": str(threads)})


def measure(args: argparse.Namespace) -> dict[str, dict[str, dict[str, Any]]]:
    """Return time and memory by sweep and library."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, points in list_sweeps(args.dict_size, 2 * args.dict_size).items():
        for library in LIBRARIES:
            if library.name == OURS:
                ended = run_ours(points, args.tokens, args.evaluated, args.threads, args.timeout)
            elif library.name in SCRIPTS and library.is_ready:
                ended = run_peer(library, points, args.tokens, args.threads, args.timeout)
            else:
                continue
            row: dict[str, Any] = {"failed": ended.failure, "error": ended.last_error_line} if ended.failure else {}
            row |= {"seconds": ended.seconds, "peak_bytes": ended.peak_bytes}
            if evaluation := re.findall(r"([\d.]+)\s+s\s+for\s+the\s+evaluation", ended.output + ended.errors):
                row["evaluation"] = sum(map(float, evaluation))
            found.setdefault(name, {})[library.name] = row
            print(f"{name}, {library.name}: {row}", flush=True)
    return found


def format_page(data: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    rows, settings = [], data["settings"]
    for name, by_library in data["sweeps"].items():
        ours = by_library[OURS]
        for library, row in by_library.items():
            if row.get("failed"):
                rows.append([name, library, f"failed ({row['failed']})", "", ""])
                continue
            training = row["seconds"] - row.get("evaluation", 0.0)
            peak = row["peak_bytes"] / 2**20
            ratios = [row["seconds"] / ours["seconds"], training / (ours["seconds"] - ours.get("evaluation", 0.0))]
            cells = [
                f"{value:.1f} ({ratio:.2f})" for value, ratio in zip((row["seconds"], training), ratios, strict=True)
            ]
            rows.append([name, library, *cells, f"{peak:,.0f} ({row['peak_bytes'] / ours['peak_bytes']:.2f})"])
    header = ["sweep", "library", "whole process (s)", "training alone (s)", "peak (MiB)"]
    words = WORDS.format(**settings, batch=BATCH, k=K)
    title = f"# Whole sweeps beside other libraries on {data['machine']['name']}"
    return "\n\n".join([title, format_origin(data), words, table(header, rows)])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65536, help="activations that each SAE is trained on")
    parser.add_argument("--evaluated", type=int, default=4096, help="held-out activations of our evaluation")
    parser.add_argument("--dict-size", type=int, default=3072, help="latents of the smaller SAEs")
    parser.add_argument("--threads", type=int, default=machine.count_cores(), help="of torch")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds per sweep and library")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results", help="their folder")
    args = parser.parse_args()
    settings = {
        "tokens": args.tokens,
        "evaluated": args.evaluated,
        "small": args.dict_size,
        "large": 2 * args.dict_size,
    }
    data = {
        **describe_run(args.threads),  # before anything runs
        "settings": settings,
        "sweeps": measure(args),
    }
    write_results(args.results, "sweeps", data, format_page(data))


if __name__ == "__main__":
    main()
