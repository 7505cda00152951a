"""The benchmark: training steps of this project and of other libraries side by side, and whole sweeps.

Each measurement runs in a process of its own, one at a time, so leave the machine alone meanwhile. The tables, the raw
numbers and a plot are written to benchmarks/results/<machine>.md, .json and .svg.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import machine
import report
from plan import LIBRARIES, PROJECT, SIZES, Library, Sizes, measurements
from processes import Progress, run
from sweeps import time_sweeps

from sae_sweeps.runtime.files import write_json, write_text
from sae_sweeps.runtime.provenance import provenance

STEPS = PROJECT / "benchmarks" / "steps"
RESULTS = PROJECT / "benchmarks" / "results"
PLOT_PYTHON = PROJECT / ".venv-bench" / "plot" / "bin" / "python"
BUSY = 0.5  # runnable processes per core from which the machine counts as busy
STEPS_AND_WARMUP = {"cpu": (3, 1), "cuda": (20, 5)}  # timed steps, and untimed steps before them


def parse_arguments() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = machine.count_cores()
    parser.add_argument("--quick", action="store_true", help="only the base sizes, with and without dead latents")
    parser.add_argument("--no-steps", action="store_true", help="leave out the training steps")
    parser.add_argument("--no-sweeps", action="store_true", help="leave out the whole sweeps")
    parser.add_argument("--only-ours", action="store_true", help="leave out the other libraries")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, default=cores, help=f"of torch (default: one per core, {cores} here)")
    parser.add_argument("--steps", type=int, help="timed steps per measurement (default: 3, on cuda 20)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per measurement, and per point of a sweep")
    parser.add_argument("--sizes", choices=tuple(SIZES), default="full", help="tiny: for testing the benchmark itself")
    parser.add_argument("--name", help="file name of the results (default: the machine, with -quick or -tiny)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--again", type=Path, metavar="JSON", help="measure nothing: write the tables of an earlier run again"
    )
    args = parser.parse_args()
    if args.threads < 1 or (args.steps is not None and args.steps < 1):
        parser.error("--threads and --steps must be at least 1")
    if args.device == "cuda" and not args.again and machine.find_gpu() is None:
        parser.error("--device cuda: torch finds no GPU; run `nvidia-smi`, and `make setup TORCH_BACKEND=auto`")
    return args


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything. Return what is written as JSON, from which the tables are made."""
    sizes = SIZES[args.sizes]
    missing = [library.name for library in LIBRARIES if not library.is_ready and not args.only_ours]
    for name in missing:
        print(f"{name} is left out: it has no environment; `make bench` creates it")
    load = machine.read_load()
    busy = load > BUSY * machine.count_cores()
    if busy:
        print(f"the machine is busy (load {load:.1f}): other processes will distort the numbers")
    data: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(args.device),
        "threads": args.threads,
        "load": load,
        "busy": busy,
        "provenance": provenance(),
        "sizes": args.sizes,
        "compared": sizes.compared(args.device, args.quick),
        "missing": missing,
    }
    if not args.no_steps:
        data["steps"] = time_steps(args, sizes)
    if not (args.no_sweeps or args.quick):
        print("whole sweeps:")
        data["sweep_settings"] = sizes.sweep_settings
        data["sweeps"] = time_sweeps(sizes, args.device, args.threads, args.timeout)
    return data


def time_steps(args: argparse.Namespace, sizes: Sizes) -> list[dict[str, Any]]:
    """Return the record of each measurement of training steps."""
    points = sizes.points(args.device, args.quick)
    chosen = [library for library in LIBRARIES if library.is_ready and not (args.only_ours and library.environment)]
    planned = [(library, spec) for library, spec in measurements(points) if library in chosen]
    base_size = sizes.base["batch"] * sizes.base["dict_size"]
    progress = Progress([0.3 + spec["batch"] * spec["dict_size"] / base_size for _, spec in planned])
    steps, warmup = STEPS_AND_WARMUP[args.device]
    shared = {"steps": args.steps or steps, "warmup": warmup, "threads": args.threads, "device": args.device}
    print(f"{len(planned)} measurements of training steps:")
    found = []
    for library, spec in planned:
        record = time_step(library, spec | shared, args.timeout)
        progress.report(f"{format_spec(spec)}  {library.name}: {format_outcome(record)}")
        found.append(record)
    return found


def time_step(library: Library, spec: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Return the record that the library's script prints, or one with the reason of its failure."""
    ended = run([library.python, str(STEPS / library.script), json.dumps(spec)], timeout)
    if ended.failure is None:
        return json.loads(ended.output.splitlines()[-1])
    return {"library": library.name, "spec": spec, "failed": ended.failure, "error": ended.last_error_line}


def format_spec(spec: dict[str, Any]) -> str:
    """Return the sizes of a measurement in a few words."""
    text = f"F {spec['dict_size']} k {spec['k']} batch {spec['batch']} {spec['architecture']}"
    return text + "".join(f" {key} {spec[key]}" for key in ("dead", "precision") if key in spec)


def format_outcome(record: dict[str, Any]) -> str:
    """Return the time of a step, or why the measurement failed."""
    if "failed" in record:
        return f"failed ({record['failed']}) {record['error']}"
    step, product = median(record["step_seconds"]), median(record["product_seconds"])
    return f"{step:.3g} s, {step / product:.1f} bare products"


def draw(data: dict[str, Any]) -> str | None:
    """Return the plot of time against size as SVG; None if only one size was measured, or matplotlib is missing."""
    if not report.axes(data):
        return None
    if not PLOT_PYTHON.exists():
        print("no plot: matplotlib has no environment; `make bench` creates it")
        return None
    script = PROJECT / "benchmarks" / "plot.py"
    done = subprocess.run([PLOT_PYTHON, script], input=json.dumps(data), capture_output=True, text=True)
    if done.returncode != 0:
        print(f"no plot: {done.stderr.strip()}")
        return None
    return done.stdout


def main() -> None:
    """Run the command."""
    args = parse_arguments()
    if args.again:
        data, name, folder = json.loads(args.again.read_text()), args.again.stem, args.again.parent
    else:
        data = collect(args)
        kind = ["quick"] if args.quick else []
        kind += ["tiny"] if args.sizes == "tiny" else []
        title = "-".join([data["machine"]["name"], f"{data['machine']['cores']}-cores", *kind])
        name, folder = args.name or re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"), args.results
        write_json(folder / f"{name}.json", data)  # first: the other files can be made from it with --again
    svg = draw(data)
    if svg:
        write_text(folder / f"{name}.svg", svg)
    write_text(folder / f"{name}.md", report.text(data, plot=f"{name}.svg" if svg else None))
    print(f"written: {os.path.relpath(folder / name)}.md")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
