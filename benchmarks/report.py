"""The results as a Markdown page, from what was measured."""

import textwrap
from statistics import mean
from typing import Any

from plan import ARCHITECTURES, LIBRARIES, OURS
from sweeps import EACH, ONE
from tables import DEFAULTS, NAMES, Record, dash, digits, find, good, product, slope, step, table, times

AXES = {"dict_size": "latents (F)", "k": "k", "batch": "batch"}
PRECISIONS = ("float32", "tf32", "bfloat16")

EXPLANATION = """\
Each row of the tables of steps is a process of its own, which takes a few training steps of one library on the same
synthetic activations, in float32; what stands here is the median. The libraries run with their own defaults, but for
what the scripts in `steps/` say at their head.
**The bare product** is `x @ W` alone, into new memory: the one dense product that all of these encoders need. It is
timed in the same process, so that "in bare products" can be compared even where the machine's speed drifts.
**Dead** is the share of latents that are silenced and counted as dead, which gives the auxiliary loss its work;
JumpReLU has no such loss in these libraries as they come, and so is not timed with dead latents.
**Peak** is by how much memory rises above what was in use before the SAE was made: weights, gradients, the optimizer's
state and all that a step holds. **L0** is the number of active latents per activation."""

ROUNDED = """\
*tf32* and *bfloat16* are of the product that proposes the latents; everything else, and the bare product beside it, is
in float32.

"""

GROWTH = """\
One size is varied at a time; the others stay at {base}, and no latent is dead. The slope is that of the straight line
through the logarithms: 1 where twice the size takes twice the time, 0 where it changes nothing."""

SWEEPS = """\
The embedded model, `{settings}`, from the start of the command to its end, with loading the model, evaluating and
saving every SAE. *One command* is a sweep as it is meant: its points share the activations. *A command each* starts
`launch.py` once for every point, one after the other; each was run once, and the smaller sweeps are the first of them.
The peak is that of the largest process. What is told apart on the right is by the program's own clock, which starts
when the model is loaded; what its total has beyond the activations and the
own steps is evaluating, saving and bookkeeping."""


def axes(data: dict[str, Any]) -> dict[str, list[int]]:
    """The sizes that were varied, each with its values, where all others are at their base."""
    base, found = data["compared"][0], {}
    specs = [DEFAULTS | record["spec"] for record in data.get("steps", [])]
    for axis in AXES:
        others = {**DEFAULTS, **base}
        del others[axis]
        values = {spec[axis] for spec in specs if all(spec[key] == value for key, value in others.items())}
        if len(values) > 1:
            found[axis] = sorted(values)
    return found


def text(data: dict[str, Any], plot: str | None) -> str:
    parts = [f"# Benchmark on {data['machine']['name']}"]
    if data["sizes"] == "tiny":
        parts.append("**Tiny sizes, to try the benchmark itself: the numbers mean nothing.**")
    if "steps" in data:
        parts.append(EXPLANATION)
    parts.append(_setting(data))
    if "steps" in data:
        parts += [_comparison(data, sizes) for sizes in data["compared"]]
        if axes(data):
            parts.append(_growth(data, plot))
        if axes(data) and len(data["compared"]) == 1:
            parts.append(_all_along_the_axes(data))
    if "sweeps" in data:
        parts.append(_sweeps(data))
    return "\n\n".join(parts) + "\n"


def _setting(data: dict[str, Any]) -> str:
    machine, origin = data["machine"], data["provenance"]
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB of memory"
    changed = " with uncommitted changes" if origin["uncommitted_changes"] else ""
    versions = {record["library"]: record["version"] for record in data.get("steps", []) if good(record)}
    torches = {record["torch"] for record in data.get("steps", []) if good(record)} or {origin["packages"]["torch"]}
    lines = [
        f"Date: {data['date']}",
        f"Machine: {machine['cpu']}, {_count(machine['cores'], 'core')}, {_count(data['threads'], 'thread')}, {memory}",
        f"Python {origin['python']}, torch {', '.join(sorted(torches))}",
        f"{OURS}: commit {(origin['commit'] or 'unknown')[:10]}{changed}",
        *(f"{name} {version}" for name, version in versions.items() if name != OURS),
        *([f"The machine was busy when this began: its load was {data['load']:.1f}"] if data["busy"] else []),
        *(f"{name}: left out, its environment could not be had" for name in data["missing"]),
    ]
    if machine["gpu"]:
        lines.insert(2, f"GPU: {machine['gpu']}")
    return "\n".join(f"- {line}" for line in lines)


def _filled(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 120, break_on_hyphens=False, break_long_words=False)


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _unit(data: dict[str, Any]) -> tuple[str, float]:
    return ("ms", 1000.0) if data["machine"]["gpu"] else ("s", 1.0)


def _size(sizes: dict[str, int]) -> str:
    return f"d = {sizes['d']}, F = {sizes['dict_size']:,} latents, k = {sizes['k']}, batch = {sizes['batch']:,}"


def _comparison(data: dict[str, Any], sizes: dict[str, int]) -> str:
    unit, scale = _unit(data)
    header = ["SAE", "library", "dead", f"step ({unit})", "in bare products", "in steps of ours", "peak (MiB)", "L0"]
    dead_shares = sorted({record["spec"].get("dead", 0.0) for record in data["steps"]})
    rows = []
    for architecture in ARCHITECTURES:
        for dead in dead_shares:
            wanted = {**sizes, "architecture": architecture, "dead": dead}
            ours = find(data["steps"], library=OURS, **wanted)
            for library in LIBRARIES:
                for precision in PRECISIONS:
                    record = find(data["steps"], library=library.name, **wanted, precision=precision)
                    if record is not None:
                        name = library.name + ("" if precision == "float32" else f", {precision}")
                        rows.append([NAMES[architecture], name, _dead(record), *_numbers(record, ours, scale)])
    note = ROUNDED if any(row[1].endswith(PRECISIONS[1:]) for row in rows) else ""
    return f"## One step: {_size(sizes)}\n\n{note}{table(header, rows, words=2)}"


def _dead(record: Record) -> str:
    """The share of latents that the library itself counted as dead."""
    spec = DEFAULTS | record["spec"]
    return f"{record['dead_latents'] / spec['dict_size'] if good(record) else spec['dead']:.0%}"


def _numbers(record: Record, ours: Record | None, scale: float) -> list[str]:
    if not good(record):
        return [dash(record), "", "", "", ""]
    return [
        digits(step(record) * scale),
        times(step(record) / product(record)),
        times(step(record) / step(ours)) if ours and good(ours) else "",
        f"{record['peak_bytes'] / 2**20:,.0f}",
        f"{record['l0']:.1f}",
    ]


def _growth(data: dict[str, Any], plot: str | None) -> str:
    """Our step's time beside the bare product's, one size varied at a time."""
    unit, scale = _unit(data)
    base = data["compared"][0]
    header = ["", f"bare product ({unit})"]
    header += [text for name in NAMES.values() for text in (f"{name} ({unit})", "in products")]
    rows = []
    for axis, values in axes(data).items():
        timed: dict[str, list[tuple[int, float]]] = {name: [] for name in ("product", *ARCHITECTURES)}
        for value in values:
            cells, products = [], []
            for architecture in ARCHITECTURES:
                record = find(data["steps"], library=OURS, architecture=architecture, **{**base, axis: value})
                if record is None or not good(record):
                    cells += [dash(record), ""]
                    continue
                products.append(product(record))
                timed[architecture].append((value, step(record)))
                cells += [digits(step(record) * scale), times(step(record) / product(record))]
            if products:
                timed["product"].append((value, mean(products)))
            rows.append([f"{AXES[axis]} = {value:,}", digits(mean(products) * scale) if products else "", *cells])
        slopes = [f"{slope(*zip(*line, strict=True)):.2f}" if len(line) > 1 else "" for line in timed.values()]
        rows.append([f"*slope over {AXES[axis]}*", slopes[0], *(text for shown in slopes[1:] for text in (shown, ""))])
    words = _filled(GROWTH.format(base=_size(base)))
    picture = f"\n\n![Seconds per step over latents, k and batch]({plot})" if plot else ""
    return f"## How our step grows\n\n{words}\n\n{table(header, rows)}{picture}"


def _all_along_the_axes(data: dict[str, Any]) -> str:
    unit, scale = _unit(data)
    base = data["compared"][0]
    sizes = [(axis, value) for axis, values in axes(data).items() for value in values if value != base[axis]]
    header = ["SAE", "library", "base", *(f"{'F' if axis == 'dict_size' else axis} = {v:,}" for axis, v in sizes)]
    rows = []
    for architecture in ARCHITECTURES:
        for library in LIBRARIES:
            cells = []
            for axis, value in [("d", base["d"]), *sizes]:
                wanted = {**base, axis: value, "architecture": architecture}
                record = find(data["steps"], library=library.name, **wanted)
                ours = find(data["steps"], library=OURS, **wanted)
                cells.append(_beside_ours(record, ours, scale) if record and good(record) else dash(record))
            if any(cells):
                rows.append([NAMES[architecture], library.name, *cells])
    words = (
        f"A step in {unit}, and in parentheses how many steps of ours it takes, at the same size. No latent is dead."
    )
    return f"## All libraries at these sizes\n\n{words}\n\n{table(header, rows, words=2)}"


def _beside_ours(record: Record, ours: Record | None, scale: float) -> str:
    shown = digits(step(record) * scale)
    if record is ours or not (ours and good(ours)):
        return shown
    return f"{shown} ({times(step(record) / step(ours))})"


def _sweeps(data: dict[str, Any]) -> str:
    header = ["points", "run as", "time (s)", "per point (s)", "one by one takes", "peak (MiB)"]
    header += ["activations (s)", "own steps (s)", "evaluation (s)", "total / (activations + own steps)"]
    each = {row["points"]: row for row in data["sweeps"] if row["how"] == EACH}
    rows = []
    for row in sorted(data["sweeps"], key=lambda row: (row["points"], row["how"] == EACH)):
        cells = [str(row["points"]), row["how"]]
        if not good(row):
            rows.append([*cells, dash(row), *[""] * 7])
            continue
        other = each.get(row["points"])
        longer = times(other["seconds"] / row["seconds"]) + " x" if row["how"] == ONE and good(other) and other else ""
        rows.append(
            [
                *cells,
                f"{row['seconds']:.1f}",
                f"{row['seconds'] / row['points']:.1f}",
                longer,
                f"{row['peak_bytes'] / 2**20:,.0f}",
                *_inside(row.get("inside", {})),
            ]
        )
    words = _filled(SWEEPS.format(settings=" ".join(data["sweep_settings"])))
    return f"## Whole sweeps\n\n{words}\n\n{table(header, rows, words=2)}"


def _inside(inside: dict[str, float]) -> list[str]:
    """The parts of a pack's time, as far as the program told them."""
    activations, own = inside.get("activations"), inside.get("points' own steps")
    cells = ["" if seconds is None else f"{seconds:.1f}" for seconds in (activations, own)]
    evaluation = inside.get("evaluation")
    share = "" if evaluation is None else f"{evaluation:.1f} ({evaluation / inside['total']:.0%})"
    ratio = f"{inside['total'] / (activations + own):.2f}" if activations is not None and own else ""
    return [*cells, share, ratio]
