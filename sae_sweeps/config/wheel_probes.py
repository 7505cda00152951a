"""The data sets of sae-probes, from its Python wheel: what to download, and the folder of the unpacked files."""

from pathlib import Path

from sae_sweeps.config.wheel_models import models_folder

REQUIREMENT = "sae-probes==0.4.2"
SHA256 = "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03"  # of the wheel
LICENCE = "MIT"  # of the package
MASTER = "sae_probes/data/probing_datasets_MASTER.csv.zst"  # table of all data sets, in the wheel
FOLDER = "sae_probes/data/cleaned_data"  # folder of the data sets in the wheel
KIND = "Binary Classification"  # of the data sets that are fetched, in the table
FETCH_COMMAND = "python -m sae_sweeps.cli.fetch_probes"


def probes_folder() -> Path:
    """Return the folder that the data sets are unpacked to. It starts with ~ if the home folder is not known."""
    return models_folder().parent / "probes" / REQUIREMENT.replace("==", "-")
