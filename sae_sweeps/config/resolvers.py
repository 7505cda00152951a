"""Registers the schemas with Hydra, and the OmegaConf resolvers that the files of conf/ use."""

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config.identity import point_name
from sae_sweeps.config.names import NAME_FIX, find_names_problem
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config
from sae_sweeps.config.sparsity import find_listed_setting
from sae_sweeps.config.tasks import POINT_TASKS
from sae_sweeps.config.wheel_models import wheel_folder
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.paths import PATH_FIX, expand, find_path_problem
from sae_sweeps.runtime.places import PROJECT


def register() -> None:
    """Register the schemas with Hydra and the resolvers with OmegaConf, before Hydra composes.

    Another call changes nothing. ${project:} is the project's folder, ${wheel:NAME} the folder of a model from Python
    wheels, ${listed:NAME} a setting with which a listed coefficient was found (`find_listed_setting`), ${point:} the
    name of the point, ${sweep_dir:} the folder of the sweep. ${run_dir:} is the folder in which Hydra runs a command
    without -m, and ${output_subdir:} the subfolder in which Hydra writes the files of such a command.
    """
    # Hydra copies its repository, store included, for every command and a hundred times for --help, only to read it
    setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for architecture, schema in SAE_SCHEMAS.items():
        store.store(group="schema/sae", name=architecture, node=schema)
    OmegaConf.register_new_resolver("project", lambda: str(PROJECT), replace=True)
    OmegaConf.register_new_resolver("wheel", lambda name: str(wheel_folder(name)), replace=True)
    OmegaConf.register_new_resolver("point", lambda *, _root_: point_name(_root_), replace=True)
    OmegaConf.register_new_resolver("sweep_dir", lambda *, _root_: _sweep_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("listed", lambda name, *, _root_: find_listed_setting(_root_, name), replace=True)
    OmegaConf.register_new_resolver("run_dir", lambda *, _root_: _run_dir(_root_), replace=True)
    OmegaConf.register_new_resolver("output_subdir", lambda *, _root_: _output_subdir(_root_), replace=True)


def _sweep_dir(cfg: DictConfig) -> str:
    """Return the folder of the sweep. Raises: ConfigError if output_root cannot be expanded."""
    return f"{expand(cfg.output_root, 'output_root')}/{cfg.name}"


def _run_dir(cfg: DictConfig) -> str:
    """Return the folder of the point, or "." (the working directory) for a task that runs on a whole sweep.

    Raises: ConfigError for a name or output_root that cannot be a sweep's, because Hydra would create the folder.
    """
    if cfg.task.name not in POINT_TASKS:
        return "."
    if (problem := find_names_problem(cfg.name, cfg.task.name)) is not None:
        raise ConfigError("name", cfg.name, problem, NAME_FIX)
    if (problem := find_path_problem(cfg.output_root)) is not None:
        raise ConfigError("output_root", cfg.output_root, problem, PATH_FIX)
    return f"{_sweep_dir(cfg)}/{point_name(cfg)}"


def _output_subdir(cfg: DictConfig) -> str | None:
    """Return the subfolder of a point's folder for Hydra's files; None (no files) for a task on a whole sweep."""
    return ".hydra" if cfg.task.name in POINT_TASKS else None
