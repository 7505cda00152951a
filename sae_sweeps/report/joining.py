"""The report's table of joined SAEs, beside the single SAEs of the same chain of sizes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable

SHOWN = ("nmse", "l0", "ce_degradation", "nmse_at_k", "ce_degradation_at_k", "dead_fraction")


def list_joined(studies: Sequence[FinishedStudy], labels: Mapping[tuple[Path, str], str]) -> list[list[str]]:
    """Return table rows of joined SAEs: per chain each single SAE, followed by what is joined up to its size.

    labels: of points in the page, by the sweep's folder and the point's name

    The first row has the titles; there is no other row without a study.
    """
    rows = [["SAE", "Latents", *(METRICS[name].title for name in SHOWN)]]
    for study in studies:
        if study.task == "join":
            with skip_unreadable(study.folder):
                for row in study.results["saes"]:
                    label = labels.get((study.sweep.folder, row["up_to"]), row["up_to"])
                    if row["kind"] == "joined":
                        label = f"joined up to {label}, novel below {study.settings['threshold']:g}"
                        label += describe_differences(study, studies)
                    numbers = [METRICS[name].text(row.get(name)) for name in SHOWN]
                    rows.append([label, f"{row['latents']:,}", *numbers])
    return rows
