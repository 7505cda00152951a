"""Task `scaling`: fits how the NMSE falls with dictionary size, k and training tokens, and predicts other sizes."""

import logging

from sae_sweeps.config import Config
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.report.scaling import describe_laws
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import NO_POINTS, NotRunError
from sae_sweeps.studies.scaling import ScalingError
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.calibration import Calibration
from sae_sweeps.sweep.scaling_budget import Budget
from sae_sweeps.sweep.scaling_laws import describe_law, group_for_laws, write_laws
from sae_sweeps.tasks.report import refresh

log = logging.getLogger(__name__)


def run(sweep: Sweep, config: Config) -> list[str]:
    """Write scaling.json and the report, and print what the laws say. Returns an empty list.

    Raises: NotRunError if the sweep has no points, or not enough for a law.
    """
    groups = group_for_laws(load_sweep(sweep).points)
    if not groups:
        raise NotRunError(NO_POINTS)
    settings, budget = config.scaling, None
    if settings.hours is not None:
        budget = Budget(settings.hours, Calibration(sweep.folder.parent, is_local=True, setting=config.device))
    laws, refused = [], {}
    for group in groups:
        try:
            laws.append(describe_law(group, settings.dict_sizes, settings.tokens, budget))
        except ScalingError as error:
            refused[group.label] = str(error)
    reasons = [f"{label}: {reason}" for label, reason in refused.items()]
    if not laws:
        raise NotRunError("; ".join(reasons))
    write_laws(sweep, laws, refused)
    for line in [*describe_laws(laws), *reasons]:
        console.print(line, markup=False, highlight=False)
    refresh(sweep, config)
    return []
