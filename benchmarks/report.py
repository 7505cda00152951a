"""Formats the measurements as a Markdown page."""

import textwrap
from statistics import mean
from typing import Any

from plan import ARCHITECTURES, LIBRARIES, OURS
from sweeps import EACH, ONE
from tables import DEFAULTS, NAMES, Record, dash, digits, find, good, product, slope, step, table, times

AXES = {"dict_size": "latents (F)", "k": "k", "batch": "batch"}
PRECISIONS = ("float32", "tf32", "bfloat16")

EXPLANATION = """\
Each row of the tables of steps is the median of a few training steps in a process of its own, all on the same synthetic
activations, in float32. The libraries run with their own defaults; the scripts in `steps/` list the exceptions.
**The bare product** is `x @ W` alone, into new memory: the one dense product that all of these encoders need. It is
timed in the same process, so "in bare products" stays comparable if the machine's speed drifts.
**Dead** is the share of latents that are silenced and counted as dead, so that the auxiliary loss is computed. JumpReLU
has no auxiliary loss in these libraries by default and is not timed with dead latents.
**Peak** is the rise in memory from before the SAE is created: weights, gradients, optimizer state and everything that a
step holds. **L0** is the number of active latents per activation."""

ROUNDED = """\
*tf32* and *bfloat16* are the precision of the product that proposes the latents; everything else, and the bare product,
is in float32.

"""

GROWTH = """\
One size is varied at a time; the others stay at {base}, and no latent is dead. The slope is from a linear fit of the
logarithms: 1 means that time grows in proportion to the size, 0 that it does not depend on it."""

SWEEPS = """\
The embedded model, `{settings}`. Times are from the start of the command to its end, including loading the model and
evaluating and saving every SAE. *One command* trains all points as one sweep, so they share the activations.
*A command each* runs `launch.py` once per point, one after the other; each point was run once, and smaller sweeps are
the first of these points. The peak is that of the largest process. The columns on the right are measured by the program
itself from the moment the model is loaded; the rest of its total is evaluating, saving and bookkeeping."""


def axes(data: dict[str, Any]) -> dict[str, list[int]]:
    """Return the sizes that were varied, with their values, while all others stayed at the base."""
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
    """Return the Markdown page. `plot` is the path of its figure, if there is one."""
    parts = [f"# Benchmark on {data['machine']['name']}"]
    if data["sizes"] == "tiny":
        parts.append("**Tiny sizes, to test the benchmark itself: the numbers mean nothing.**")
    if "steps" in data:
        parts.append(EXPLANATION)
    parts.append(_setting(data))
    if "steps" in data:
        parts += [_comparison(data, sizes) for sizes in data["compared"]]
        if axes(data):
            parts.append(_growth(data, plot))
        if axes(data) and len(data["compared"]) == 1:
            parts.append(_all_libraries_per_size(data))
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
        *([f"The machine was busy at the start: its load was {data['load']:.1f}"] if data["busy"] else []),
        *(f"{name}: left out, its environment could not be installed" for name in data["missing"]),
    ]
    if machine["gpu"]:
        lines.insert(2, f"GPU: {machine['gpu']}")
    return "\n".join(f"- {line}" for line in lines)


def _fill(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 120, break_on_hyphens=False, break_long_words=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    """Return the share of latents that the library itself counted as dead."""
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
    """Return the table of our step time and the bare product's, with one size varied at a time."""
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
    words = _fill(GROWTH.format(base=_size(base)))
    picture = f"\n\n![Seconds per step over latents, k and batch]({plot})" if plot else ""
    return f"## How our step grows\n\n{words}\n\n{table(header, rows)}{picture}"


def _all_libraries_per_size(data: dict[str, Any]) -> str:
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
                cells.append(_compare_with_ours(record, ours, scale) if record and good(record) else dash(record))
            if any(cells):
                rows.append([NAMES[architecture], library.name, *cells])
    words = (
        f"Time per step in {unit}; in parentheses, divided by the time of our step at the same size. No latent is dead."
    )
    return f"## All libraries at these sizes\n\n{words}\n\n{table(header, rows, words=2)}"


def _compare_with_ours(record: Record, ours: Record | None, scale: float) -> str:
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
    words = _fill(SWEEPS.format(settings=" ".join(data["sweep_settings"])))
    return f"## Whole sweeps\n\n{words}\n\n{table(header, rows, words=2)}"


def _inside(inside: dict[str, float]) -> list[str]:
    """Return the cells with the parts of a pack's time that the program logged."""
    activations, own = inside.get("activations"), inside.get("points' own steps")
    cells = ["" if seconds is None else f"{seconds:.1f}" for seconds in (activations, own)]
    evaluation = inside.get("evaluation")
    share = "" if evaluation is None else f"{evaluation:.1f} ({evaluation / inside['total']:.0%})"
    ratio = f"{inside['total'] / (activations + own):.2f}" if activations is not None and own else ""
    return [*cells, share, ratio]
