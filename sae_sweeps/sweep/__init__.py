"""A sweep on disk: its points, their states, packs and jobs, and the plan and checks before it runs. Needs no torch."""

from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.sweep import Sweep

__all__ = ["Point", "Sweep"]
