"""Times SAEs at several hooks in one command, which run the language model once, and in one command per hook.

    python benchmarks/hooks.py                        # the embedded model: some minutes
    python benchmarks/hooks.py --model smollm2-135m   # after python -m sae_sweeps.cli.fetch_model smollm2-135m

Leave the machine alone meanwhile. The table and its numbers are written to benchmarks/results/, in
<machine>-hooks-<model>.md and .json.
"""

import argparse
from pathlib import Path
from typing import Any

import machine
from pages import describe_run, format_origin, write_results
from plan import ARCHITECTURES, PROJECT, Sizes
from sweeps import STEPS, launch, summarise
from tables import table

HOOKS = {  # model in conf/model -> its hooks, the deepest one last
    "embedded": [f"blocks.{layer}.hook_resid_pre" for layer in (1, 2, 3, 4)],
    "smollm2-135m": [f"blocks.{layer}.hook_resid_pre" for layer in (6, 9, 12, 15)],
}
WORDS = """\
{count} hooks of `{model}` x 3 SAEs of {dict_size} latents (BatchTopK, TopK, JumpReLU), {tokens} activations each, k 32.
A command per hook runs the language model to each of them, one command runs it once, to the deepest. Seconds are those
that the program logs: activations, with reading the text, and training steps. The **bound** is one pass to the deepest
hook and the steps of all SAEs, from the commands with one hook."""


def measure(model: str, tokens: int, dict_size: int, threads: int, timeout: float) -> dict[str, dict[str, Any]]:
    """Return the row of each command: one per hook, and one with all of them."""
    words = (f"model={model}", f"training.tokens={tokens}", "evaluation.tokens=1024")
    sizes = Sizes({}, {}, (), (dict_size, dict_size), (3,), words)
    rows = {}
    for name, hooks in [*((hook, [hook]) for hook in HOOKS[model]), ("all", HOOKS[model])]:
        points = [
            {"model.hook": hook, "sae": architecture, "dict_size": dict_size}
            for hook in hooks
            for architecture in ARCHITECTURES
        ]
        ended = launch(["-m"], points, sizes, "cpu", threads, timeout)
        rows[name] = summarise(len(points), name, [ended], ended.output + ended.errors)
        print(f"{name}: {rows[name]}", flush=True)
    return rows


def compare(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of activations and steps in one command, those of the bound, and their ratio."""
    single = [row["inside"] for name, row in rows.items() if name != "all"]
    together = rows["all"]["inside"]
    bound = single[-1]["activations"] + sum(inside[STEPS] for inside in single)
    seconds = together["activations"] + together[STEPS]
    each = sum(inside["activations"] + inside[STEPS] for inside in single)
    whole = sum(row["seconds"] for name, row in rows.items() if name != "all")
    return {
        "seconds": seconds,
        "bound": bound,
        "ratio": seconds / bound,
        "each": each,
        "whole_ratio": whole / rows["all"]["seconds"],
    }


def format_page(data: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    rows, found = data["rows"], data["compared"]
    cells = [
        [
            "all in one command" if name == "all" else f"`{name}`",
            str(row["points"]),
            f"{row['seconds']:.1f}",
            f"{row['inside']['activations']:.1f}",
            f"{row['inside'][STEPS]:.1f}",
            f"{row['inside'].get('evaluation', 0):.1f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
        ]
        for name, row in rows.items()
    ]
    header = ["hook", "SAEs", "time (s)", "activations (s)", "steps (s)", "evaluation (s)", "peak (MiB)"]
    return "\n\n".join(
        [
            f"# Several hooks in one pass on {data['machine']['name']}",
            format_origin(data),
            WORDS.format(count=len(rows) - 1, **data["settings"]),
            table(header, cells),
            f"Activations and steps in one command: {found['seconds']:.1f} s, **{found['ratio']:.2f} x** the bound of "
            f"{found['bound']:.1f} s. In a command per hook they take {found['each']:.1f} s. Whole commands, with "
            f"loading and evaluation: one command takes 1 / {found['whole_ratio']:.2f} of the time.",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(HOOKS), default="embedded", help="a model of conf/model")
    parser.add_argument("--tokens", type=int, default=131072, help="activations that each SAE is trained on")
    parser.add_argument("--dict-size", type=int, default=3072, help="latents of each SAE")
    parser.add_argument("--threads", type=int, default=machine.count_cores(), help="of torch")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds per command")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results", help="their folder")
    args = parser.parse_args()
    about = describe_run(args.threads)
    rows = measure(args.model, args.tokens, args.dict_size, args.threads, args.timeout)
    data = {
        **about,
        "settings": {"model": args.model, "tokens": f"{args.tokens:,}", "dict_size": args.dict_size},
        "rows": rows,
        "compared": compare(rows),
    }
    write_results(args.results, f"hooks-{args.model}", data, format_page(data))


if __name__ == "__main__":
    main()
