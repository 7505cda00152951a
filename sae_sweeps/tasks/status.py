"""Task `status`: prints the state of every point, from the points' folders and from Slurm. It can run at any time."""

from sae_sweeps.config import Config
from sae_sweeps.report import status
from sae_sweeps.sweep import Sweep


def run(sweep: Sweep, config: Config) -> list[str]:
    """Print the state of every point. Returns an empty list, because a failed point is no failure of this task."""
    status.show(sweep)
    return []
