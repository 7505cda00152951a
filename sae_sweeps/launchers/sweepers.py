"""What a Hydra sweeper needs of a launcher, and settings that do not fit the sweeper."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import POINT_TASKS
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.objective import SETTING, list_objectives

OURS = tuple(f"hydra_plugins.sae_sweeps_launchers.{name}" for name in ("Sweeper", "HalvingSweeper"))
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
WAIT = "hydra.launcher.wait"


def reads_results(master: DictConfig) -> bool:
    """Return whether the sweeper of a command reads the results of a batch of points before it launches the next.

    master: Hydra's configuration of the whole command
    """
    return bool(master.hydra.sweeper._target_ not in OURS)


def find_sweeper_problems(master: DictConfig, config: Config, *, waits: bool) -> list[ConfigError]:
    """Return an error for each setting with which the sweeper could not get the results that it needs.

    master: Hydra's configuration of the whole command
    config: the configuration of a point
    waits: whether the launcher returns after the points have ended
    """
    if not reads_results(master):
        return []
    sweeper = f"hydra/sweeper={master.hydra.runtime.choices['hydra/sweeper']}"
    found = []
    if config.halving.enabled:
        problem = f"{sweeper} chooses points by their results, which pruned points do not have"
        found.append(ConfigError("halving.enabled", "true", problem, "leave out one of them"))
    if not waits:
        problem = f"{sweeper} reads the results of points when the launcher returns, and the jobs have not ended then"
        found.append(ConfigError(WAIT, "false", problem, f"{WAIT}=true"))
    if master.hydra.sweeper._target_ == BASIC:
        return found
    task = config.task.name
    if task not in POINT_TASKS:
        problem = f"{sweeper} proposes points from the results of others, so it only runs task={POINT_TASKS[0]}"
        found.append(ConfigError("task", task, problem, "leave out the experiment or the sweeper"))
    elif config.objective is None:
        problem = f"{sweeper} needs the value of a metric of each point"
        found.append(ConfigError(SETTING, "null", problem, f"{SETTING}=nmse, or another metric of results.json"))
    elif (error := _find_wrong_direction(master, config)) is not None:
        found.append(error)
    return found


def _find_wrong_direction(master: DictConfig, config: Config) -> ConfigError | None:
    """Return an error if the sweeper's directions are not as many as the objectives, or seek the worse end of one."""
    direction = OmegaConf.select(master, "hydra.sweeper.direction")
    if direction is None:
        return None
    given = [_name_direction(one) for one in (direction if OmegaConf.is_list(direction) else [direction])]
    objectives = [METRICS[name] for name in list_objectives(config) if name in METRICS]
    wanted = [f"{metric.best}imize" if metric.best else None for metric in objectives]
    if len(given) == len(wanted) and all(want in (None, have) for want, have in zip(wanted, given, strict=True)):
        return None
    names = ", ".join(metric.name for metric in objectives)
    fitting = [want or "minimize" for want in wanted]
    fix = fitting[0] if len(fitting) == 1 else f"[{','.join(fitting)}]"
    problem = f"does not fit {SETTING} ({names}): give each metric the direction in which it is better"
    return ConfigError("hydra.sweeper.direction", ",".join(given), problem, f"'hydra.sweeper.direction={fix}'")


def _name_direction(direction: Any) -> str:
    """Return minimize or maximize for a direction, which is text or a member of an enumeration."""
    return str(getattr(direction, "name", direction))
