"""Makes the launchers and the sweeper known to Hydra, which finds plugins only in the namespace `hydra_plugins`."""

from sae_sweeps.launchers import composition, local
from sae_sweeps.launchers.slurm import launcher


class PackLauncher(local.PackLauncher):
    """The target of conf/hydra/launcher/pack.yaml."""


class SlurmLauncher(launcher.SlurmLauncher):
    """The target of conf/hydra/launcher/slurm.yaml."""


class Sweeper(composition.Sweeper):
    """The target of conf/hydra/sweeper/points.yaml."""


class HalvingSweeper(composition.HalvingSweeper):
    """The target of conf/hydra/sweeper/halving.yaml."""
