"""Cells of the report's tables of studies: labels of SAEs, and numbers."""

from collections.abc import Mapping
from pathlib import Path

from sae_sweeps.evaluation.ratios import format_number
from sae_sweeps.report.finished import FinishedStudy

Labels = Mapping[tuple[Path, str], str]  # of points in the page, by the sweep's folder and the point's name


def label_point(labels: Labels, study: FinishedStudy, point: str) -> str:
    """Return the label of a study's point in the page, or its name if the page does not have it."""
    return labels.get((study.sweep.folder, point), point)


def format_cell(value: float | None, spec: str) -> str:
    """Return a number as text in a format such as ".4f", or a dash."""
    return "–" if value is None else format_number(value, spec)  # noqa: RUF001  a dash that means "no value"
