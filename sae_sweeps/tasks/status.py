"""Task `status`: every point's state, from its folder and from Slurm. Nothing has to run for it to be right."""

from sae_sweeps import status
from sae_sweeps.sweep import Sweep


def run_sweep(sweep: Sweep) -> bool:
    """Show it. True: whatever the states are, they were told."""
    status.show(sweep)
    return True
