"""Task `evaluate`: the same metrics, on the same held-out text, for trained SAEs of any library."""

import logging

from sae_sweeps.config import Config
from sae_sweeps.config.synthetic import SYNTHETIC
from sae_sweeps.evaluation.evaluate import evaluate_whole
from sae_sweeps.evaluation.metrics import find_concentration, remark_on
from sae_sweeps.evaluation.ratios import describe_metrics
from sae_sweeps.report.terminal import saes_table
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.saved_saes import saved_labels
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, plan_per_sae

log = logging.getLogger(__name__)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return one evaluation per SAE that the command selects, and one sentence on skipped points (empty if none are).

    Raises: ConfigError if the SAE of `saved=` does not exist.
    """
    return plan_per_sae("evaluate", sweep, command, {})


def run(sweep: Sweep, config: Config) -> list[str]:
    """Evaluate the SAEs that `config` selects and print a table of metrics. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    failures = run_studies(studies, _evaluate, skipped_reason)
    labels = saved_labels([study.saved["sae"] for study in studies])
    results = {label: point_state.read_results(study.folder) for label, study in zip(labels, studies, strict=True)}
    metrics = {label: content["metrics"] for label, content in results.items() if content is not None}
    if metrics:
        model = studies[0].config.model
        ks = {label: content["study"]["sae"]["k"] for label, content in results.items() if content is not None}
        title = "synthetic activations" if model.name == SYNTHETIC else f"{model.name} at {model.hook}"
        console.print(saes_table(title, metrics, ks))
    for label, values in metrics.items():
        for note in (find_concentration(values), remark_on(values)):
            if note is not None:
                log.warning("%s: %s", label, note)
    return failures


def _evaluate(study: Study, display: PointProgress) -> None:
    """Evaluate one SAE on held-out text and write the metrics to results.json."""
    source = study.load_activations()
    sae = study.load_sae("sae", source)
    display.show_stage("evaluating")
    data, batch_size = source.held_out(study.config.evaluation.tokens), study.config.training.batch_size
    k = study.saved["sae"].k
    metrics, sparsity, _ = evaluate_whole(sae, source.model, data, k=k, batch_size=batch_size)
    study.write_results(metrics, sparsity=sparsity)
    log.info("%s: %s", study.name, describe_metrics(metrics))
    study.track("step", lambda run: None, metrics)
