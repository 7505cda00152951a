"""A sweep on disk: its points, their states, packs and jobs, and what is known before it runs. Nothing needs torch."""

from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.sweep import Sweep

__all__ = ["Point", "Sweep"]
