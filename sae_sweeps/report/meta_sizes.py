"""The report's table of meta-SAEs over several sizes, with a row for each size."""

from collections.abc import Sequence

from sae_sweeps.report.cells import Labels, format_cell, label_point
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable

# title of a column, name in the row of a size, and format
COLUMNS = (
    ("Latents decomposed", "decomposed", ",d"),
    ("Never active", "never_active", ",d"),
    ("Explained variance", "explained_variance", ".1%"),
    ("Shuffled", "explained_variance_shuffled", ".1%"),
    ("Meta-latents per latent", "l0", ".2f"),
    ("Meta-latents used", "meta_latents", ",d"),
    ("By this size only", "meta_latents_only_here", ",d"),
    ("Cosine with a meta-latent", "nearest_meta_latent_mean", ".2f"),
    ("Cosine with another latent", "nearest_other_latent_mean", ".2f"),
)


def list_sizes(studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    """Return table rows of the sizes of each study of several sizes. The first row has the titles, and is always there.

    The last column has, for each other size, the mean of the largest cosine of a latent with one of that size.
    """
    rows = [["SAE", *(title for title, _, _ in COLUMNS), "Cosine with one of another size"]]
    for study in studies:
        if study.task == "meta_sizes":
            with skip_unreadable(study.folder):
                rows += _list_rows(study, studies, labels)
    return rows


def _list_rows(study: FinishedStudy, studies: Sequence[FinishedStudy], labels: Labels) -> list[list[str]]:
    metrics = study.results["metrics"]
    about = f"{metrics['meta_latents']:,} meta-latents, k {study.settings['k']}{describe_differences(study, studies)}"
    rows = []
    for found in study.results["sizes"]:
        label = f"{label_point(labels, study, found['point'])}: {about}"
        cells = [format_cell(found[name], spec) for _, name, spec in COLUMNS]
        nearest = found["nearest_latent_mean_of"].items()
        rows.append([label, *cells, ", ".join(f"{format_cell(mean, '.2f')} ({int(size):,})" for size, mean in nearest)])
    return rows
