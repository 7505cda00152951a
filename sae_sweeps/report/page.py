"""Builds report.html: one HTML file with its data, scripts and styles."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sae_sweeps.config.commands import format_command
from sae_sweeps.config.differences import shorten_paths
from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.report import saebench
from sae_sweeps.report.answers import describe_answers, list_differences
from sae_sweeps.report.blocks import Blocks, to_well_formed_json
from sae_sweeps.report.cautions import list_cautions
from sae_sweeps.report.contests import Contest, find_contests
from sae_sweeps.report.explorer import build_explorer
from sae_sweeps.report.finished import FinishedStudy, find_finished
from sae_sweeps.report.halving import ABOUT as ABOUT_HALVING
from sae_sweeps.report.halving import describe_halving, list_brackets
from sae_sweeps.report.html_parts import escape, make_list, make_section, make_table
from sae_sweeps.report.joining import list_joined
from sae_sweeps.report.matching import list_matched
from sae_sweeps.report.meta_sizes import list_sizes
from sae_sweeps.report.points import collect_point_data, list_points, read_curve, read_sparsity
from sae_sweeps.report.probing import ABOUT_PROBES, ABOUT_SETS, list_probed, list_probed_sets
from sae_sweeps.report.scaling import ABOUT_LAWS, collect_laws, describe_laws, list_predictions
from sae_sweeps.report.steering import list_steered
from sae_sweeps.report.studies import collect_studies, list_evaluated, list_outdated, list_remarks
from sae_sweeps.report.summary import describe_points, list_failures, summarise
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import ComparedPoint, Group, group_by_seed
from sae_sweeps.sweep.scaling_laws import read_laws

DIFFERENCES = (
    "The best SAE of each k, and of each size there, beside others: how much lower its NMSE and CE degradation are, at "
    "an L0 of k where all are measured there. An interval that contains 0 is unclear. Each is for one pair: of twenty "
    "pairs of SAEs that are alike, about one is shown as different."
)
# tasks whose commands the page shows
SHOWN_TASKS = ("report", "stitch", "meta_sae", "meta_sizes", "latents", "scaling")
ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "basics",
    "help",
    "export",
    "identity",
    "legend",
    "axes",
    "charts",
    "points",
    "filters",
    "address",
    "comparison",
    "curves",
    "sparsity",
    "scaling",
    "settings",
    "studies",
    "stitching",
    "stitching_charts",
    "families",
    "neighbourhoods",
    "meta_saes",
    "meta_sizes",
    "search",
    "frequencies",
    "explorer",
    "cards",
    "main",
)


def build_page(
    title: str,
    points: Sequence[ComparedPoint],
    outcomes: Mapping[str, Mapping[str, Any]],
    max_bytes: int,
    on_progress: OnProgress | None = None,
    sweeps: Sequence[Sweep] = (),
) -> str:
    """Return the HTML report on points of one or several sweeps as one self-contained document.

    outcomes: "sweep: follow-up task" -> state, reason and job at the end of the task
    max_bytes: about how many bytes the latent explorer may take
    on_progress: called with (done, total), which count pairs of compared SAEs
    sweeps: all sweeps of the report, also those without points; if empty, the sweeps of the points
    """
    groups, contests = group_by_seed(points), find_contests(points)
    rows = list_points(groups)
    members = [point for group in groups for point in group.points]
    labelled_points = {row["key"]: (row["label"], point) for row, point in zip(rows, members, strict=True)}
    blocks = Blocks()
    blocks.add("plotly", library := read_plotly())
    blocks.add("curves", [read_curve(point) for point in members])
    blocks.add("sparsity", [read_sparsity(point) for point in members])
    sweeps = sweeps or list({point.sweep.folder: point.sweep for point in points}.values())
    studies = [study for sweep in sweeps for study in find_finished(sweep)]
    blocks.add("studies", shorten_paths(by_task := collect_studies(studies)))
    laws = [law for sweep in sweeps for law in read_laws(sweep, points)]
    content = {
        "title": title,
        "sweeps": [sweep.name for sweep in sweeps],
        "commands": _list_commands(sweeps),
        **collect_point_data(groups, contests, points, rows),
        "scaling": collect_laws(laws),
        "studies": {task: len(found) for task, found in by_task.items()},
        "explorer": build_explorer(blocks, labelled_points, studies, max_bytes, on_progress),
    }
    parts = {
        "title": escape(title),
        **_summary_sections(groups, contests),
        "cautions": make_list("cautions", [*list_cautions(groups), *list_outdated(studies, points)]),
        "about": make_list("about", describe_points(points)),
        "scaling": make_table("Scaling laws", ABOUT_LAWS, list_predictions(laws), describe_laws(laws)),
        "halving": _halving_section(labelled_points.values()),
        **_table_sections(studies, labelled_points.values()),
        "failures": make_list("failures", list_failures(points, outcomes)),
        "written": escape(_describe_origin()),
        "data": to_well_formed_json(shorten_paths(content)).replace("<", "\\u003c"),
        "blocks": blocks.html(),
    }
    return _fill_template(parts, library)


def _summary_sections(groups: Sequence[Group], contests: Sequence[Contest]) -> dict[str, str]:
    """Return the HTML of the answer, the summary and the table of differences, by name."""
    return {
        "answers": make_list("answers", describe_answers(contests)),
        "summary": escape(summarise(groups)),
        "differences": make_section("differences", "Differences", DIFFERENCES, list_differences(contests)),
    }


def _halving_section(labelled: Iterable[tuple[str, ComparedPoint]]) -> str:
    rows, remarks = list_brackets(labelled), describe_halving(point for _, point in labelled)
    return make_section("halving", "Halving", ABOUT_HALVING, rows, remarks)


def _list_commands(sweeps: Sequence[Sweep]) -> dict[str, str]:
    """Return the commands that the page shows, by task, for the first sweep; empty if there is no sweep.

    An output_root outside of the command's folder is left to the reader, as the page is passed on.
    """
    if not sweeps:
        return {}
    root, here = sweeps[0].folder.parent, Path.cwd()
    if root.is_absolute():
        root = root.relative_to(here) if root.is_relative_to(here) else Path("OUTPUT_ROOT")
    return {task: format_command(task, sweeps[0].name, root) for task in SHOWN_TASKS}


def _fill_template(parts: Mapping[str, str], library: str) -> str:
    """Return page.html with scripts and styles filled in, and each `<!--NAME-->` replaced by the part NAME.

    library: the script of Plotly, which the page runs from a block of data
    """
    style = read_asset("page.css") + architecture_colors()
    scripts = {name: f"\n{read_asset(f'{name}.js')}" for name in ("theme", *SCRIPTS)}
    elements = {name: f"<script>{script}</script>" for name, script in scripts.items()}
    assets = {
        "policy": _build_policy([*scripts.values(), library], [style, ""]),
        "theme": elements.pop("theme"),
        "style": f"<style>{style}</style>",
        "scripts": "\n".join(elements.values()),
    }
    text = read_asset("page.html")
    for name, part in {**parts, **assets}.items():
        text = text.replace(f"<!--{name}-->", part)
    return text


def _build_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return the content security policy: only these scripts run, and nothing is requested, sent or embedded.

    styles: of `<style>` elements; Plotly makes an empty one, and fills it by a script
    """
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash_source, scripts)),
        "style-src": " ".join(map(_hash_source, styles)),
        "img-src": "data: blob:",  # pictures of charts, for the button that saves them
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {allowed}" for name, allowed in rules.items())


def _hash_source(text: str) -> str:
    """Return a script or style as a content security policy names it, by its SHA-256."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _table_sections(studies: Sequence[FinishedStudy], labelled: Iterable[tuple[str, ComparedPoint]]) -> dict[str, str]:
    """Return the HTML sections that are a table of studies, by name; empty text for a task without studies.

    labelled: label and point of each point in the page
    """
    labels = {(point.sweep.folder, point.name): label for label, point in labelled}
    evaluated = "SAEs evaluated on their own with task=evaluate, on the same metrics as the points above."
    steered = "What the model predicts after a prompt when latents are changed at the hook (task=steer)."
    joined = "The smallest SAE with the novel latents of each larger one, beside the single SAEs (task=join)."
    matched = (
        "Active latents of two SAEs by decoder cosine (task=match): one to one, in the assignment with the largest sum "
        "of cosines, and each with its nearest. Similar are those whose cosine reaches stitch.threshold."
    )
    remarks = list_remarks(studies)
    sizes = "All SAEs that differ only in size, decomposed by one meta-SAE, a row for each size (task=meta_sizes)."
    each = make_table("Each data set", ABOUT_SETS, list_probed_sets(studies, labels))
    folded = each and f"<details><summary>Each data set</summary>{each}</details>"
    probed = make_section("probed", "Sparse probing", ABOUT_PROBES, list_probed(studies, labels), below=folded)
    return {
        "probed": probed,
        "sizes": make_table("Meta-SAEs of several sizes", sizes, list_sizes(studies, labels)),
        "evaluated": make_section("evaluated", "Evaluated SAEs", evaluated, list_evaluated(studies), remarks),
        "joined": make_section("joined", "Joined SAEs", joined, list_joined(studies, labels)),
        "matched": make_section("matched", "Matched SAEs", matched, list_matched(studies, labels)),
        "saebench": make_section("saebench", "SAEBench core", saebench.ABOUT, saebench.list_core(studies, labels)),
        "saebench_others": make_section(
            "saebench-others", "SAEBench", saebench.ABOUT_OTHERS, saebench.list_others(studies, labels)
        ),
        "steered": make_section("steered", "Steering", steered, list_steered(studies)),
    }


def architecture_colors() -> str:
    """Return CSS that defines a colour --NAME for each architecture, for the light and the dark theme."""
    rules = []
    for number, theme in enumerate((":root", ':root[data-theme="dark"]')):
        colors = "; ".join(f"--{name}: {entry.color[number]}" for name, entry in ARCHITECTURES.items())
        rules.append(f"{theme} {{ {colors}; }}\n")
    return "".join(rules)


def read_asset(name: str) -> str:
    """Return the text of a script, style sheet or HTML file in the folder assets."""
    return (ASSETS / name).read_text(encoding="utf-8")


def read_plotly() -> str:
    """Return the JavaScript of Plotly from the package plotly."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _describe_origin() -> str:
    """Return today's date (UTC) and the project's commit. The time is left out, so equal reports are equal files."""
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    commit = provenance().get("commit")
    return today + (f", commit {commit[:10]}" if commit else "")
