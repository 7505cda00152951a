"""The report's tables of SAEBench's metrics: of its core evaluation, and of those of the package sae-bench."""

from collections.abc import Sequence

from sae_sweeps.config.saebench import CORE
from sae_sweeps.report.cells import Labels, format_cell, label_point
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable

ABOUT = (
    "SAEBench's core metrics (task=saebench), with the definitions of sae-bench 0.6.0, and on the same activations "
    "NMSE and FVU. Its explained variance is not 1 - FVU; docs/saebench.md explains the differences."
)
ABOUT_OTHERS = "Evaluations that the package sae-bench computed (task=saebench)."
COLUMNS = {  # metric -> title and number format
    "kl_div_score": ("KL score", ".4f"),
    "ce_loss_score": ("CE score", ".4f"),
    "explained_variance": ("Explained variance (SAEBench)", ".4f"),
    "explained_variance_legacy": ("Explained variance (legacy)", ".4f"),
    "nmse": ("NMSE", ".4f"),
    "fvu": ("FVU", ".4f"),
    "cossim": ("Cosine", ".4f"),
    "l2_ratio": ("L2 ratio", ".3f"),
    "relative_reconstruction_bias": ("Reconstruction bias", ".3f"),
    "l0": ("L0", ".1f"),
    "l1": ("L1", ".1f"),
    "frac_alive": ("Alive", ".1%"),
    "freq_over_10_percent": ("Denser than 10 %", ".1%"),
    "average_max_decoder_cosine_sim": ("Largest decoder cosine, mean", ".3f"),
}


def list_core(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of SAEBench's core metrics, highest KL score first.

    The first row has the titles; there is no other row without a study.
    """
    found: list[tuple[float, list[str]]] = []
    for study in studies:
        if _computes(study, CORE):
            with skip_unreadable(study.folder):
                metrics, evaluated = study.results["metrics"], study.results["evaluated"]
                sequences = evaluated["n_eval_sparsity_variance_batches"] * evaluated["batch_size_prompts"]
                cells = [format_cell(metrics.get(name), spec) for name, (_, spec) in COLUMNS.items()]
                score = metrics["kl_div_score"]
                row = [_label(study, studies, labels), *cells, f"{sequences * evaluated['context_size']:,}"]
                found.append((float("inf") if score is None else -score, row))
    rows = [row for _, row in sorted(found)]
    return [["SAE", *(title for title, _ in COLUMNS.values()), "Tokens"], *rows]


def list_others(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of the metrics of SAEBench's other evaluations, a row for each metric.

    The first row has the titles; there is no other row without a study.
    """
    rows = [["SAE", "Evaluation", "Metric", "Value"]]
    for study in studies:
        if study.task == "saebench" and not _computes(study, CORE):
            with skip_unreadable(study.folder):
                label, evaluation = _label(study, studies, labels), study.settings["eval"]
                metrics = study.results["metrics"]
                rows += [[label, evaluation, name, format_cell(value, ".4f")] for name, value in metrics.items()]
    return rows


def _computes(study: FinishedStudy, evaluation: str) -> bool:
    return study.task == "saebench" and study.settings.get("eval") == evaluation


def _label(study: FinishedStudy, studies: Sequence[FinishedStudy], labels: Labels) -> str:
    """Return the label of the study's SAE, and the settings in which studies of the same evaluation differ."""
    alike = [one for one in studies if one.task != study.task or one.settings.get("eval") == study.settings["eval"]]
    return label_point(labels, study, study.point("sae")) + describe_differences(study, alike)
