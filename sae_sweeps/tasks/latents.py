"""Task `latents`: what each latent means: its top tokens in context, how often it is active, what it raises."""

import logging
from dataclasses import asdict

from sae_sweeps.config import Config
from sae_sweeps.runtime.files import write_table
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.studies import latent_tables
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.study import Study, plan_per_sae, run_studies

log = logging.getLogger(__name__)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """The SAEs that a command is about, and what is to be said of those that cannot be studied.

    Raises: ConfigError if an SAE is named that is not there.
    """
    return plan_per_sae("latents", sweep, command, asdict(command.latents))


def run(sweep: Sweep, config: Config) -> list[str]:
    """Look at the latents of all SAEs. Returns why those that failed have failed."""
    found, skipped_reason = plan_studies(sweep, config)
    return run_studies(found, _look, skipped_reason)


def _look(study: Study, shown: PointProgress) -> None:
    source, settings = study.load_source(), study.settings
    sae = study.load_sae("sae", source)
    top, tokens_NS = latent_tables.collect_top_activations(source, sae, settings, shown)
    parts = latent_tables.build_rows(source, top, tokens_NS, sae.W_dec.detach(), settings, shown)
    write_table(study.folder / "latents.parquet", latent_tables.SCHEMA, parts)
    metrics = {
        "activations": top.seen,
        "latents": sae.dict_size,
        "never_active": int((top.fired == 0).sum()),
        "active_on_1_percent": int((top.frequency >= 0.01).sum()),
    }
    study.write_results(metrics)
    log.info("%s: %d of %d latents are never active", study.name, metrics["never_active"], metrics["latents"])
    frequencies = top.frequency.clamp(min=0.1 / top.seen).log10().cpu().numpy()
    study.track("step", lambda run: run.histogram("log10_frequency", frequencies), metrics)
