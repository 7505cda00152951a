"""Finds what belongs to the program: its code, conf/ and the embedded model, in a checkout or in an installed package.

In a checkout, conf/ and embedded/ are beside the package. In a wheel they are inside it (pyproject.toml).
"""

from pathlib import Path

DISTRIBUTION = "sae-sweeps"  # what pip installs
PACKAGE = Path(__file__).resolve().parents[1]  # the folder sae_sweeps
CODE = PACKAGE.parent  # a checkout, site-packages, or the snapshot of the code that a Slurm job runs
IS_INSTALLED = (PACKAGE / "conf").is_dir()
PROJECT = PACKAGE if IS_INSTALLED else CODE  # the folder with conf/ and embedded/
