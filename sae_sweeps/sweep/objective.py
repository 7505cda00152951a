"""The setting `objective`: the metrics of a finished point that a sweeper gets, to propose the next points."""

from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.runtime.errors import ConfigError, FailedPointError
from sae_sweeps.runtime.inputs import suggest
from sae_sweeps.sweep import point_state

SETTING = "objective"


def list_objectives(config: Config) -> list[str]:
    """Return the names of the metrics in the setting `objective`; an empty list for None."""
    if config.objective is None:
        return []
    return list(config.objective) if isinstance(config.objective, list) else [config.objective]


def find_objective_problems(config: Config) -> list[ConfigError]:
    """Return an error for each name in the setting `objective` that is no metric, and for a list without names."""
    names = list_objectives(config)
    if config.objective is not None and not names:
        return [ConfigError(SETTING, "[]", "names no metric", f"{SETTING}=nmse, or {SETTING}=null for none")]
    unknown = [name for name in names if name not in METRICS]
    return [ConfigError(SETTING, name, "is no metric", suggest(str(name), list(METRICS))) for name in unknown]


def read_objective(config: Config, folder: Path) -> float | list[float] | None:
    """Return the objective of a finished point from its results.json: a list if the setting is one, None if it is None.

    folder: folder of the point
    Raises: FailedPointError if there are no results, or a metric has no value in them.
    """
    if config.objective is None:
        return None
    results = point_state.read_results(folder)
    if results is None:
        raise FailedPointError(f"{folder.name}: there is no readable {point_state.RESULTS}")
    values = []
    for name in list_objectives(config):
        if (value := results["metrics"].get(name)) is None:
            why = results.get("missing", {}).get(name, f"it is not in {point_state.RESULTS}")
            raise FailedPointError(f"{folder.name}: {SETTING}={name} has no value: {why}")
        values.append(float(value))
    return values if isinstance(config.objective, list) else values[0]
