"""Where Hydra finds our launchers: it takes plugins from the namespace package `hydra_plugins` alone."""

from sae_sweeps.launchers import pack


class PackLauncher(pack.PackLauncher):
    """conf/hydra/launcher/pack.yaml"""
