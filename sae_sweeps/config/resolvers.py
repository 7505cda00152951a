"""What Hydra is told of the configuration before it composes: the schemas, and the words that conf/ computes with."""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config.identity import point_name
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config
from sae_sweeps.config.tasks import POINT_TASKS
from sae_sweeps.config.wheel_models import wheel_folder
from sae_sweeps.runtime.provenance import PROJECT


def register() -> None:
    """Make the schemas and the resolvers known to Hydra. Called once, before it composes."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for architecture, schema in SAE_SCHEMAS.items():
        store.store(group="schema/sae", name=architecture, node=schema)
    OmegaConf.register_new_resolver("project", lambda: str(PROJECT), replace=True)
    OmegaConf.register_new_resolver("wheel", lambda name: str(wheel_folder(name)), replace=True)
    OmegaConf.register_new_resolver("point", lambda *, _root_: point_name(_root_), replace=True)
    OmegaConf.register_new_resolver("run_dir", lambda *, _root_: _run_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("output_subdir", lambda *, _root_: _is_of_points(_root_) and ".hydra", replace=True)


def _is_of_points(cfg: DictConfig) -> bool | None:
    """Whether the task is one for points, which have folders; None if not, as Hydra wants it."""
    return cfg.task.name in POINT_TASKS or None


def _run_dir(cfg: DictConfig) -> str:
    return f"{cfg.output_root}/{cfg.name}/{point_name(cfg)}" if _is_of_points(cfg) else "."
