"""Plots the time of a step against each size: run.py's JSON on stdin, SVG on stdout. Needs matplotlib."""

import io
import json
import sys
from statistics import mean

import matplotlib
from plan import ARCHITECTURES, LIBRARIES, OURS
from report import AXES, axes
from tables import NAMES, find, good, product, step

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "steps", "font.size": 9})

from matplotlib import pyplot  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

COLORS = dict(zip(ARCHITECTURES, ("#1f77b4", "#d62728", "#2ca02c"), strict=True))
STYLES = dict(zip((library.name for library in LIBRARIES), ("-", "--", ":", "-."), strict=True))


def main() -> None:
    """Read the JSON and print the SVG."""
    data = json.load(sys.stdin)
    varied = axes(data)
    figure, panels = pyplot.subplots(1, len(varied), figsize=(3.4 * len(varied), 3.6), sharey=True, squeeze=False)
    for panel, (axis, values) in zip(panels[0], varied.items(), strict=True):
        products: dict[int, list[float]] = {}
        for library in LIBRARIES:
            for architecture in ARCHITECTURES:
                line = []
                for value in values:
                    wanted = {**data["compared"][0], axis: value, "architecture": architecture}
                    record = find(data["steps"], library=library.name, **wanted)
                    if record and good(record):
                        line.append((value, step(record)))
                        if library.name == OURS:
                            products.setdefault(value, []).append(product(record))
                if line:
                    look = {"lw": 2, "marker": "o", "ms": 4} if library.name == OURS else {"lw": 1, "alpha": 0.8}
                    panel.plot(*zip(*line, strict=True), STYLES[library.name], color=COLORS[architecture], **look)
        bare = [(value, mean(seconds)) for value, seconds in sorted(products.items())]
        if bare:
            panel.plot(*zip(*bare, strict=True), color="black", lw=2)
        panel.set(xscale="log", yscale="log", xlabel=AXES[axis])
        panel.set_xticks(values, [f"{value}" for value in values])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("seconds per step")
    keys = [Line2D([], [], color=color, label=NAMES[name]) for name, color in COLORS.items()]
    keys.append(Line2D([], [], color="black", lw=2, label="bare product"))
    measured = {record["library"] for record in data["steps"]}
    keys += [Line2D([], [], color="gray", ls=style, label=name) for name, style in STYLES.items() if name in measured]
    figure.legend(handles=keys, ncols=4, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    print(svg.getvalue(), end="")


if __name__ == "__main__":
    main()
