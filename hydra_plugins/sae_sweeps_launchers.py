"""Where Hydra finds our launchers: it takes plugins from the namespace package `hydra_plugins` alone."""

from sae_sweeps.launchers import local


class LocalLauncher(local.LocalLauncher):
    """conf/hydra/launcher/local.yaml"""
