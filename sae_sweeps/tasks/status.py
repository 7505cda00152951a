"""Task `status`: the state of every point, from the points' folders and from Slurm. It can run at any time."""

from sae_sweeps.config import Config
from sae_sweeps.report import status
from sae_sweeps.sweep import Sweep


def run(sweep: Sweep, config: Config) -> list[str]:
    """Show the states. Never fails because of a state, so the list is empty."""
    status.show(sweep)
    return []
