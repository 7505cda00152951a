"""Task `evaluate`: the metrics of SAEs that are there, whoever trained them, on one text and by one definition."""

import logging

from sae_sweeps.config import Config
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.report.terminal import saes_table
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.files import read_json
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.saved_saes import saved_labels
from sae_sweeps.tasks.study import Study, plan_per_sae, run_studies

log = logging.getLogger(__name__)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """The SAEs that a command is about, and what is to be said of those that cannot be evaluated.

    Raises: ConfigError if an SAE is named that is not there.
    """
    return plan_per_sae("evaluate", sweep, command, {})


def run(sweep: Sweep, config: Config) -> list[str]:
    """Evaluate all SAEs and show their metrics. Returns why those that failed have failed."""
    found, skipped_reason = plan_studies(sweep, config)
    failures = run_studies(found, _evaluate, skipped_reason)
    names = saved_labels([study.saved["sae"] for study in found])
    results = {name: read_json(study.folder / point_state.RESULTS) for name, study in zip(names, found, strict=True)}
    metrics = {name: known["metrics"] for name, known in results.items() if known is not None}
    if metrics:
        where = found[0].config.model
        console.print(saes_table(f"{where.name} at {where.hook}", metrics))
    return failures


def _evaluate(study: Study, shown: PointProgress) -> None:
    source = study.load_source()
    sae = study.load_sae("sae", source)
    shown.stage("evaluating")
    metrics = evaluate(sae, source.model, source.held_out(study.config.evaluation.tokens))
    study.write_results(metrics)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    log.info("%s: %s", study.name, numbers)
    study.track("step", lambda run: None, metrics)
