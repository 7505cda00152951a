"""Takes the labels of `latents.labels` over into the sweeps of a command."""

from collections.abc import Sequence
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.report.finished import find_finished
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.labels import Labels, parse_labels, write_labels
from sae_sweeps.sweep.saved_saes import SavedSAE


def check_labels(sweeps: Sequence[Sweep], config: Config, saved: Sequence[SavedSAE] = ()) -> list[Labels]:
    """Return the labels in the file of `latents.labels`, those of each sweep. An empty list without that setting.

    saved: SAEs that may have labels besides those of the sweeps' points and studies: in the first sweep
    Raises: ConfigError with the number of the line if the file has anything else.
    """
    if config.latents.labels is None:
        return []
    sizes = [_list_saes(sweep) for sweep in sweeps]
    sizes[0] |= {one.name: one.config.dict_size for one in saved}
    labels = parse_labels(Path(config.latents.labels), {name: size for known in sizes for name, size in known.items()})
    return [{name: found for name, found in labels.items() if name in known} for known in sizes]


def keep_labels(sweeps: Sequence[Sweep], config: Config, saved: Sequence[SavedSAE] = ()) -> None:
    """Check the labels in the file of `latents.labels`, and keep them with the sweeps, in place of those they have.

    Arguments and errors are those of `check_labels`. Nothing is written if the file has an error.
    """
    for sweep, labels in zip(sweeps, check_labels(sweeps, config, saved), strict=False):
        write_labels(sweep.folder, labels)


def _list_saes(sweep: Sweep) -> dict[str, int]:
    """Return the number of latents of each SAE of a sweep, by name: of its points, and of those that it has studied."""
    studied = [study.results["study"]["sae"] for study in find_finished(sweep) if "sae" in study.results["study"]]
    sizes = {sae["point"]: sae["dict_size"] for sae in studied}
    return sizes | {point.name: point.config.dict_size for point in sweep.points()}
