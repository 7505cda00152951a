"""The checks that come before anything runs: every point, the launcher, and what all points have to share."""

import json
from collections.abc import Sequence

from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_study_settings
from sae_sweeps.launchers.protocol import Launcher
from sae_sweeps.runtime.errors import ConfigError, RefusedError
from sae_sweeps.sweep.preflight import Preflight


def refuse_invalid(points: Sequence[tuple[str, Config]], launcher: Launcher) -> None:
    """Raises: RefusedError, naming every problem once, if the launcher or a point (folder name, configuration) cannot
    run."""
    refuse_several_sweeps([config for _, config in points])
    preflight = Preflight()
    lines: dict[str, list[str]] = {}
    for folder, config in points:
        for error in [*launcher.find_problems(config), *preflight.find_problems(config)]:
            lines.setdefault(str(error), []).append(folder)
    if not lines:
        if not launcher.is_local:
            return  # only a node can tell what a node has
        for device, precision in {(config.device, config.training.precision) for _, config in points}:
            _refuse_missing(device, precision)
        return
    if len(points) == 1:
        raise RefusedError(list(lines))
    bad = {folder for folders in lines.values() for folder in folders}
    refusals = [f"{len(bad)} of {len(points)} points are invalid; nothing was run"]
    for line, folders in lines.items():
        everywhere = len(folders) == len(points)
        refusals.append(f"{line} (in {'every point' if everywhere else ', '.join(folders)})")
    raise RefusedError(refusals)


def refuse_several_sweeps(configs: Sequence[Config]) -> None:
    """Raises: RefusedError if the configurations name more than one sweep."""
    sweeps = sorted({f"{config.output_root}/{config.name}" for config in configs})
    if len(sweeps) > 1:
        problem = "the points of one command are one sweep, in one folder"
        raise RefusedError(
            [str(ConfigError("name", ", ".join(sweeps), problem, "give one name, or run a command for each"))]
        )


def distinct_studies(configs: Sequence[Config], *tasks: str) -> list[Config]:
    """Return the configurations without those that ask for the same studies of these tasks as an earlier one."""
    settings = [json.dumps([select_study_settings(config, task) for task in tasks]) for config in configs]
    return list(dict(zip(reversed(settings), reversed(configs), strict=True)).values())[::-1]


def _refuse_missing(device: str, precision: str) -> None:
    """Raises: RefusedError if the device is not there or lacks the precision. Comes last, for it imports torch."""
    from sae_sweeps.runtime.devices import choose_device, require_precision

    try:
        require_precision(precision, choose_device(device))
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
