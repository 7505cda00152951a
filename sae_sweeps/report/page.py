"""One HTML file, from data, scripts and styles."""

import functools
import html
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sae_sweeps.config.saes import ARCHITECTURES, TITLES
from sae_sweeps.report import studies
from sae_sweeps.report.blocks import Blocks, to_json
from sae_sweeps.report.explorer import explorer
from sae_sweeps.report.points import (
    about,
    answer,
    cautions,
    failures,
    groups_data,
    metrics_data,
    points_data,
    read_curve,
    shared,
)
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, group_by_seed

SOURCES = Path(__file__).parent / "assets"
SCRIPTS = (
    "basics",
    "charts",
    "points",
    "comparison",
    "curves",
    "settings",
    "studies",
    "stitching",
    "meta_saes",
    "explorer",
    "cards",
    "main",
)


def page(
    title: str,
    points: Sequence[ComparedPoint],
    followed: Mapping[str, Mapping[str, Any]],
    most: int,
    on_progress: OnProgress | None = None,
    sweeps: Sequence[Sweep] = (),
) -> str:
    """The report on points, of one sweep or of several, as one HTML document of its own. `followed`: how the tasks that
    followed have ended. The explorer's cards take at most so many bytes. `sweeps`: those of the points, or more."""
    groups = group_by_seed(points)
    rows = points_data(groups)
    members = [point for group in groups for point in group.points]
    keys = {row["key"]: (row["label"], point) for row, point in zip(rows, members, strict=True)}
    blocks = Blocks()
    blocks.add("plotly", plotly())
    blocks.add("curves", [read_curve(point) for point in members])
    sweeps = sweeps or list({point.sweep.folder: point.sweep for point in points}.values())
    found = [study for sweep in sweeps for study in studies.finished(sweep)]
    told_of = studies.studies_data(found)
    blocks.add("studies", told_of)
    same_everywhere = shared(rows)
    content = {
        "title": title,
        "sweeps": [sweep.name for sweep in sweeps],
        "architectures": TITLES,
        "metrics": metrics_data(),
        "groups": groups_data(groups),
        "points": rows,
        "shared": same_everywhere,
        "studies": {task: len(some) for task, some in told_of.items()},
        "explorer": explorer(blocks, keys, found, most, on_progress),
    }
    parts = {
        "title": html.escape(title),
        "answer": html.escape(answer(groups)),
        "cautions": _list("cautions", cautions(groups)),
        "about": _list("about", about(points)),
        "evaluated": _evaluated(studies.evaluated(found)),
        "failures": _list("failures", failures(points, followed)),
        "written": html.escape(_written()),
        "theme": source("theme.js"),
        "style": source("page.css") + architecture_colors(),
        "data": to_json(content).replace("<", "\\u003c"),
        "blocks": blocks.html(),
        "scripts": "\n".join(f"<script>\n{source(f'{name}.js')}</script>" for name in SCRIPTS),
    }
    return functools.reduce(
        lambda text, part: text.replace(f"<!--{part[0]}-->", part[1]), parts.items(), source("page.html")
    )


def _list(kind: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul id="{kind}" class="{kind}">{items}</ul>' if items else ""


def _evaluated(rows: Sequence[Sequence[str]]) -> str:
    """The section on SAEs that were evaluated by themselves, whoever trained them; nothing if there are none."""
    if len(rows) < 2:
        return ""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0])
    lines = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows[1:]
    )
    region = 'class="scroll" role="region" aria-label="Evaluated SAEs" tabindex="0"'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    about = "SAEs that were measured by themselves, whoever trained them, as the points above are measured."
    return (
        '<section id="evaluated" aria-labelledby="evaluated-title"><h2 id="evaluated-title">Evaluated</h2>'
        f"<p>{about}</p><div {region}>{table}</div></section>"
    )


def architecture_colors() -> str:
    """Return the style rules that give each architecture its colour, --NAME, on light and on dark backgrounds."""
    rules = []
    for number, theme in enumerate((":root", ':root[data-theme="dark"]')):
        colors = "; ".join(f"--{name}: {entry.color[number]}" for name, entry in ARCHITECTURES.items())
        rules.append(f"{theme} {{ {colors}; }}\n")
    return "".join(rules)


def source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def plotly() -> str:
    """The plotting library, as it came with its package."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _written() -> str:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d")  # a page that says the same is the same all day
    commit = provenance().get("commit")
    return now + (f", commit {commit[:10]}" if commit else "")
