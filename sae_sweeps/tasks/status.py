"""Task `status`: every point's state, from its folder and from Slurm. Nothing has to run for it to be right."""

from sae_sweeps.config import Config
from sae_sweeps.report import status
from sae_sweeps.sweep import Sweep


def run(sweep: Sweep, config: Config) -> list[str]:
    """Show it: whatever the states are, none of them is a failure of this."""
    status.show(sweep)
    return []
