"""The report's table of joined SAEs, beside the single SAEs of the same chain of sizes."""

from collections.abc import Sequence

from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.report.cells import Labels, label_point
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable

SHOWN = ("nmse", "l0", "ce_degradation", "nmse_at_k", "ce_degradation_at_k", "dead_fraction")


def list_joined(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of joined SAEs: per chain each single SAE, followed by what is joined up to its size.

    The first row has the titles; there is no other row without a study.
    """
    rows = [["SAE", "Latents", *(METRICS[name].title for name in SHOWN)]]
    for study in studies:
        if study.task == "join":
            with skip_unreadable(study.folder):
                for row in study.results["saes"]:
                    label = label_point(labels, study, row["up_to"])
                    if row["kind"] == "joined":
                        label = f"joined up to {label}, novel below {study.settings['threshold']:g}"
                        label += describe_differences(study, studies)
                    numbers = [METRICS[name].text(row.get(name)) for name in SHOWN]
                    rows.append([label, f"{row['latents']:,}", *numbers])
    return rows
