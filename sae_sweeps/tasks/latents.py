"""Task `latents`: the meaning of latents: most activating tokens in context, frequency, promoted output tokens."""

import logging

from sae_sweeps.config import Config
from sae_sweeps.runtime.files import write_table
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.studies import latent_tables
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.labels import check_labels, keep_labels
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, plan_per_sae

log = logging.getLogger(__name__)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return one study per SAE that the command selects, and one sentence on skipped points (empty if there are none).

    Raises: ConfigError if the SAE of `saved=` does not exist, or a line of `latents.labels` is no label.
    """
    planned = plan_per_sae("latents", sweep, command, command.latents.describe())
    check_labels([sweep], command, _list_saved(planned[0]))
    return planned


def run(sweep: Sweep, config: Config) -> list[str]:
    """Describe the latents of each SAE that `config` selects. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    keep_labels([sweep], config, _list_saved(studies))
    return run_studies(studies, _describe_latents, skipped_reason)


def _list_saved(studies: list[Study]) -> list[SavedSAE]:
    return [study.saved["sae"] for study in studies]


def _describe_latents(study: Study, display: PointProgress) -> None:
    """Find the most activating and promoted tokens of each latent of an SAE; write latents.parquet and results.json."""
    source, settings = study.load_source(), study.settings
    sae = study.load_sae("sae", source)
    top, tokens_NS = latent_tables.collect_top_activations(source, sae, settings, display)
    rows = latent_tables.build_rows(source, top, tokens_NS, sae.W_dec.detach(), settings, display)
    write_table(study.folder / "latents.parquet", latent_tables.SCHEMA, rows)
    metrics = {
        "activations": top.seen,
        "latents": sae.dict_size,
        "never_active": int((top.fired == 0).sum()),
        "active_on_1_percent": int((top.frequency >= 0.01).sum()),
    }
    study.write_results(metrics)
    log.info("%s: %d of %d latents are never active", study.name, metrics["never_active"], metrics["latents"])
    log_frequencies = top.frequency.clamp(min=0.1 / top.seen).log10().cpu().numpy()  # log10(0) is -inf
    study.track("step", lambda run: run.histogram("log10_frequency", log_frequencies), metrics)
