"""Compares a sweep with halving to the full one: the best point of each seed, and the time of the training steps.

    python benchmarks/halving.py      # 24 points x three seeds on the embedded model, twice: forty minutes on two cores

The table and its numbers are written to benchmarks/results/, in <machine>-halving.md and .json.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
from pages import describe_run, format_origin, write_results
from plan import ARCHITECTURES, PROJECT
from processes import run
from sweeps import STEPS, summarise
from tables import table

OBJECTIVE = "nmse_at_k"
RATES = ("5e-4", "1e-3", "2e-3", "3e-3", "4e-3", "6e-3", "8e-3", "1.2e-2")
WORDS = """\
{points} points: {architectures} at {rates} learning rates, {dict_size} latents, k 32, {tokens} activations each, and
each with {seeds} seeds, which are brackets of their own. `hydra/sweeper=halving` with its defaults: half of the points
continue after an eighth, a quarter and half of the activations (rounded up to chunks), by NMSE at an L0 of k on the
held-out text."""


def sweep(folder: Path, words: list[str], threads: int, timeout: float) -> dict[str, Any]:
    """Run a sweep, and return its row of `summarise`. Exits if it fails."""
    settings = [f"output_root={folder}", "name=sweep", "tracking=off", "device=cpu", *words]
    ended = run(
        [sys.executable, str(PROJECT / "launch.py"), "-m", *settings], timeout, {"OMP_NUM_THREADS": str(threads)}
    )
    if ended.failure:
        raise SystemExit(f"{' '.join(words)}: {ended.failure}: {ended.last_error_line}")
    return summarise(0, " ".join(words), [ended], ended.output + ended.errors)


def read_points(folder: Path) -> dict[str, dict[str, Any]]:
    """Return seed, label, objective and trained activations of each point; no objective if it was pruned."""
    return {file.parent.name: read_point(file.parent) for file in sorted((folder / "sweep").glob("*/settings.json"))}


def read_point(folder: Path) -> dict[str, Any]:
    """Return what `read_points` does of one point."""
    config = json.loads((folder / "settings.json").read_text())["config"]
    results, rungs = folder / "results.json", folder / "rungs.json"
    reached = json.loads(rungs.read_text())["values"] if rungs.exists() else {}
    is_done = results.exists()
    return {
        "seed": config["seed"],
        "label": f"{config['sae']['architecture']}, lr {config['training']['lr']:g}",
        "objective": json.loads(results.read_text())["metrics"][OBJECTIVE] if is_done else None,
        "trained": config["training"]["tokens"] if is_done else max(map(int, reached)),
        "rungs": reached,
    }


def compare(full: dict[str, dict[str, Any]], halved: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each seed the best point of the full sweep, that with halving, and how they compare."""
    rows, both = [], {"full": full, "halved": halved}
    for seed in sorted({point["seed"] for point in full.values()}):
        names = sorted((name for name in full if full[name]["seed"] == seed), key=lambda name: full[name]["objective"])
        ended = [name for name in names if halved[name]["objective"] is not None]
        found = min(ended, key=lambda name: halved[name]["objective"])
        trained = {name: sum(points[one]["trained"] for one in names) for name, points in both.items()}
        rows.append(
            {
                "seed": seed,
                "best": full[names[0]]["label"],
                "best_objective": full[names[0]]["objective"],
                "found": full[found]["label"],
                "found_objective": halved[found]["objective"],
                "place": 1 + names.index(found),
                "best_reached": halved[names[0]]["trained"],
                "trained": trained["halved"] / trained["full"],
            }
        )
    return rows


def format_page(data: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    settings = data["settings"]
    header = ["seed", "best of all", "NMSE at k", "found", "NMSE at k", "its place among all", "trained"]
    rows = [
        [
            str(row["seed"]),
            row["best"],
            f"{row['best_objective']:.4f}",
            row["found"],
            f"{row['found_objective']:.4f}",
            str(row["place"]),
            f"{row['trained']:.0%}",
        ]
        for row in data["rows"]
    ]
    full, halved = data["full"], data["halved"]
    same = sum(row["place"] == 1 for row in data["rows"])
    parts = [f"{part} {full['inside'][part]:.0f} and {halved['inside'][part]:.0f} s" for part in full["inside"]]
    return "\n\n".join(
        [
            f"# A sweep with halving on {data['machine']['name']}",
            format_origin(data),
            WORDS.format(**settings),
            table(header, rows),
            f"The same best point with {same} of {len(rows)} seeds. Training steps take **{data['ratio']:.0%}** of "
            f"their time in the full sweep. The full sweep, and with halving: whole commands {full['seconds']:.0f} and "
            f"{halved['seconds']:.0f} s, of which {', '.join(parts)}.",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=327_680, help="activations that each SAE is trained on")
    parser.add_argument("--dict-size", type=int, default=3072, help="latents of each SAE")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each point")
    parser.add_argument("--threads", type=int, default=machine.count_cores(), help="of torch")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds per sweep")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results", help="their folder")
    args = parser.parse_args()
    about = describe_run(args.threads)
    words = [
        f"sae={','.join(ARCHITECTURES)}",
        f"training.lr={','.join(RATES)}",
        f"seed={','.join(map(str, range(args.seeds)))}",
        f"dict_size={args.dict_size}",
        f"training.tokens={args.tokens}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder).resolve() / name for name in ("full", "halved")}
        halved = sweep(places["halved"], ["hydra/sweeper=halving", *words], args.threads, args.timeout)
        print(f"with halving: {halved}", flush=True)
        full = sweep(places["full"], words, args.threads, args.timeout)
        print(f"full: {full}", flush=True)
        points = {name: read_points(place) for name, place in places.items()}
    settings = {
        "points": len(ARCHITECTURES) * len(RATES),
        "architectures": ", ".join(ARCHITECTURES),
        "rates": len(RATES),
        "dict_size": args.dict_size,
        "tokens": f"{args.tokens:,}",
        "seeds": args.seeds,
    }
    data = {
        **about,
        "settings": settings,
        "full": full,
        "halved": halved,
        "rows": compare(**points),
        "points": points,
        "ratio": halved["inside"][STEPS] / full["inside"][STEPS],
    }
    write_results(args.results, "halving", data, format_page(data))


if __name__ == "__main__":
    main()
