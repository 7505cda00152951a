"""Measures the cost of the studies: time of stitching next to evaluation, memory of comparing many directions.

The SAEs are trained briefly on the embedded model's activations first. Results: benchmarks/results/<machine>-studies.md
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from pages import format_versions, write_results
from plan import ARCHITECTURES, PROJECT
from processes import run
from tables import NAMES, table

from sae_sweeps.runtime.provenance import provenance

SMALL, LARGE, ACTIVATIONS = 3072, 6144, 100_000
DIRECTIONS = (49_152, 98_304, 768)
TRAINED = ("training.tokens=131072", "tracking=off")

WORDS = """\
**Evaluating both** is what a sweep does for its points: it reconstructs {activations:,} held-out activations and
computes the cross entropy with all of them replaced. **Stitching** is all of `task=stitch` except its files and
figures: comparing the decoder directions, one pass over the same activations for the change in MSE of every latent and
for four paths, and the CE degradation at some positions on 8,192 of them. The time to compute the activations is in
neither. *Reconstructing alone* leaves out the cross entropy, in both. Each ran once, one after the other, in one
process."""


def time_call(work: Any) -> tuple[Any, float]:
    """Return the result of `work()`, and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def measure_stitching(folder: Path, architecture: str) -> dict[str, float]:
    """Return the seconds of stitching and of evaluating the pair of this architecture in a sweep's folder."""
    import torch

    from sae_sweeps.activations.source import ActivationSource, load_source
    from sae_sweeps.config.studies import StitchConfig
    from sae_sweeps.evaluation.evaluate import evaluate
    from sae_sweeps.evaluation.reconstruction import BATCH
    from sae_sweeps.studies.pair import Pair
    from sae_sweeps.sweep import Sweep
    from sae_sweeps.sweep.sae_groups import pair_neighbours
    from sae_sweeps.sweep.saved_saes import from_point
    from sae_sweeps.tasks.stitch import measure_ce_degradation

    points = [point for point in Sweep(folder).points() if point.config.sae.architecture == architecture]
    ((small, large),) = pair_neighbours([from_point(point) for point in points])
    inputs = load_source(large.config, torch.device("cpu"))
    saes = small.load(inputs.device), large.load(inputs.device)
    settings = StitchConfig(tokens=ACTIVATIONS)
    data = inputs.held_out(ACTIVATIONS)
    inputs.held_out(settings.ce_tokens)

    def reconstruct() -> None:
        for sae in saes:
            for x_BD in data.acts_AD.split(BATCH):
                (x_BD - sae(x_BD)).square().sum(1)

    def stitch() -> Pair:
        pair = Pair(saes[0], saes[1], settings)
        for x_BD in data.acts_AD.split(BATCH):
            pair.update(x_BD)
        assert pair.metrics["activations"] == len(data.acts_AD)
        return pair

    reconstruct()  # warms up
    _, reconstructing = time_call(reconstruct)
    _, evaluating = time_call(lambda: [evaluate(sae, inputs.model, data) for sae in saes])
    pair, stitching = time_call(stitch)
    assert isinstance(inputs, ActivationSource), "the text is no synthetic one"
    _, on_the_way = time_call(lambda: measure_ce_degradation(pair, inputs))
    return {
        "activations": len(data.acts_AD),
        "reconstructing": reconstructing,
        "evaluating": evaluating,
        "stitching": stitching,
        "ce_on_the_way": on_the_way,
    }


def measure_directions() -> dict[str, float]:
    """Return the seconds to compare many directions and find their families at five thresholds."""
    import torch

    from sae_sweeps.studies.directions import compare

    left, right, width = DIRECTIONS
    generator = torch.Generator().manual_seed(0)
    right_MD = torch.randn(right, width, generator=generator)
    left_ND = right_MD[:left] + 0.5 * torch.randn(left, width, generator=generator)
    found, seconds = time_call(lambda: compare(left_ND, right_MD, [0.5, 0.6, 0.7, 0.8, 0.9]))
    return {"seconds": seconds, "mean_cosine": found.left.cosine.mean().item()}


def collect(timeout: float) -> dict[str, Any]:
    """Train the SAEs and measure everything. Return what is written as JSON. `timeout`: seconds per part."""
    this_script = [sys.executable, __file__]
    data: dict[str, Any] = {"machine": machine.describe("cpu"), "load": machine.read_load(), "provenance": provenance()}
    with tempfile.TemporaryDirectory() as root:
        overrides = [f"sae={','.join(ARCHITECTURES)}", f"dict_size={SMALL},{LARGE}", f"output_root={root}", *TRAINED]
        print("training the SAEs", flush=True)
        trained = run([sys.executable, str(PROJECT / "launch.py"), "-m", *overrides], timeout)
        if trained.failure:
            sys.exit(f"the SAEs could not be trained: {trained.last_error_line}")
        data["stitching"] = {}
        for architecture in ARCHITECTURES:
            ended = run([*this_script, "--stitch", f"{root}/sweep", architecture], timeout)
            if ended.failure:
                sys.exit(f"{architecture}: {ended.failure}: {ended.last_error_line}")
            data["stitching"][architecture] = json.loads(ended.output.splitlines()[-1])
            print(f"{architecture}: {data['stitching'][architecture]}", flush=True)
    ended = run([*this_script, "--directions"], timeout)
    if ended.failure:
        sys.exit(f"directions: {ended.failure}: {ended.last_error_line}")
    data["directions"] = {**json.loads(ended.output.splitlines()[-1]), "peak_bytes": ended.peak_bytes}
    return data


def format_page(data: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    rows, activations = [], 0
    for architecture, seconds in data["stitching"].items():
        stitching, activations = seconds["stitching"] + seconds["ce_on_the_way"], int(seconds["activations"])
        rows.append(
            [
                NAMES[architecture],
                f"{seconds['evaluating']:.1f}",
                f"{stitching:.1f}",
                f"{stitching / seconds['evaluating']:.2f}",
                f"{seconds['reconstructing']:.1f}",
                f"{seconds['stitching']:.1f}",
                f"{seconds['stitching'] / seconds['reconstructing']:.2f}",
            ]
        )
    header = ["SAE", "evaluating both (s)", "stitching (s)", "ratio"]
    header += ["reconstructing alone (s)", "its part of stitching (s)", "ratio"]
    left, right, width = DIRECTIONS
    directions = data["directions"]
    return "\n\n".join(
        [
            f"# What the studies cost on {data['machine']['name']}",
            f"- {data['machine']['cpu']}, {data['machine']['cores']} cores, load at the start {data['load']:.1f}\n"
            f"{format_versions(data['provenance'])}",
            f"## Stitching {SMALL:,} latents with {LARGE:,}",
            WORDS.format(activations=activations),
            table(header, rows),
            "## Comparing decoder directions",
            f"{left:,} with {right:,} directions of width {width}, and their families at five thresholds: "
            f"{directions['seconds']:.0f} s, and a peak of {directions['peak_bytes'] / 2**30:.2f} GiB for the whole "
            f"process ({(left + right) * width * 4 / 2**30:.2f} GiB of that are the directions).",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for each part")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results", help="their folder")
    parser.add_argument("--stitch", nargs=2, metavar=("SWEEP", "SAE"), help=argparse.SUPPRESS)
    parser.add_argument("--directions", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stitch:
        print(json.dumps(measure_stitching(Path(args.stitch[0]), args.stitch[1])))
    elif args.directions:
        print(json.dumps(measure_directions()))
    else:
        data = collect(args.timeout)
        write_results(args.results, "studies", data, format_page(data))


if __name__ == "__main__":
    main()
