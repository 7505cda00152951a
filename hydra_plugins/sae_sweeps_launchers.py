"""Where Hydra finds our launchers and sweeper: it takes plugins from the namespace package `hydra_plugins` alone."""

from sae_sweeps.launchers import composition, local
from sae_sweeps.launchers.slurm import launcher


class PackLauncher(local.PackLauncher):
    """conf/hydra/launcher/pack.yaml"""


class SlurmLauncher(launcher.SlurmLauncher):
    """conf/hydra/launcher/slurm.yaml"""


class Sweeper(composition.Sweeper):
    """conf/hydra/sweeper/points.yaml"""
