"""Task `join`: SAEs joined from the smallest SAE of a sweep and the novel latents of each larger one."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sae_sweeps.config import Config
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.evaluation.ratios import format_number
from sae_sweeps.formats import saelens
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.formats.metadata import text_metadata
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import write_table
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.studies.joining import Joined, find_obstacle, join
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.sae_groups import group_by_settings
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, collect_done
from sae_sweeps.tracking.run import Run

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("point", pa.string()),  # the SAE that the latent is from
        ("latent_there", pa.int32()),
        ("cosine", pa.float32()),  # largest decoder cosine with the latents joined before; null for the smallest SAE's
    ]
)
# metrics in a row of results.json; those at k compare SAEs at an equal L0
SHOWN = ("nmse", "l0", "ce_degradation", "dead_fraction", "nmse_at_k", "l0_at_k", "ce_degradation_at_k")


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return a study per group of trained SAEs that differ only in size, and a sentence on skipped points ("": none).

    Groups of TopK SAEs, whose latents cannot be taken apart, are left out with a message.
    """
    done, skipped = collect_done(sweep)
    groups = [group for group in group_by_settings(done) if len(group) > 1]
    chains = [group for group in groups if group[0].config.sae.architecture != "topk"]
    for group in groups:
        if group not in chains:
            log.info("%s: TopK SAEs are not joined, because which latents are active depends on all", group[0].title)
    studies = [_plan_study(sweep, command, chain) for chain in chains]
    if not studies:
        skipped = skipped or f"no two SAEs of sweep {sweep.name} with thresholds (not TopK) differ only in dict_size"
    return studies, skipped


def _plan_study(sweep: Sweep, command: Config, chain: Sequence[SavedSAE]) -> Study:
    roles = {f"size_{one.config.dict_size}": one for one in chain}
    title = f"{chain[0].title}--{chain[-1].title}"
    return Study.from_command("join", sweep, command, title, roles, {"threshold": command.stitch.threshold})


def run(sweep: Sweep, config: Config) -> list[str]:
    """Join the SAEs of each chain of sizes in a sweep. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    return run_studies(studies, _join, skipped_reason)


def _join(study: Study, display: PointProgress) -> None:
    """Join a chain, evaluate what is joined after each size beside the single SAEs, and write the joined SAE."""
    source = study.load_source()
    parts = {part: study.load_sae(part, source) for part in study.saved}
    if (obstacle := find_obstacle([*parts.values()])) is not None:
        raise ConfigError("name", study.config.name, f"has SAEs that cannot be joined: {obstacle}", "join others")
    steps = join([*parts.values()], study.settings["threshold"])
    data = source.held_out(study.config.evaluation.tokens)
    rows = []
    for (part, single), joined in zip(parts.items(), steps, strict=True):
        for kind, sae in (("single", single), ("joined", joined.sae)):
            if kind == "single" or joined is not steps[0]:
                display.show_stage(f"evaluating {kind} SAEs up to {single.dict_size} latents")
                found = evaluate(sae, source.model, data, k=study.config.k)
                rows.append(
                    {"kind": kind, "up_to": study.saved[part].name, "latents": sae.dict_size}
                    | {name: found[name] for name in SHOWN}
                )
    metrics = summarise_rows(rows)
    joined = steps[-1]
    metadata = {"sae_sweeps": {"joined_of": [one.name for one in study.saved.values()]}, **text_metadata(study.config)}
    saelens.write(study.folder / SAE_FOLDER, joined.sae, metadata)
    write_table(study.folder / "latents.parquet", SCHEMA, [_describe_latents(study, joined)])
    study.write_results(metrics, saes=rows)
    log.info("%s: %s", study.name, _describe(metrics))
    study.track("step", lambda run: _log_run(run, rows), metrics)


def summarise_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of a study: of the joined SAE, and of the largest and the smallest single one."""
    single = [row for row in rows if row["kind"] == "single"]
    chosen = {"": rows[-1], "_smallest": single[0], "_largest": single[-1]}
    return {f"{name}{end}": row[name] for end, row in chosen.items() for name in ("latents", *SHOWN)}


def _describe_latents(study: Study, joined: Joined) -> dict[str, list[Any]]:
    names = [one.name for one in study.saved.values()]
    return {
        "latent": list(range(len(joined.latent_J))),
        "point": [names[part] for part in joined.part_J.tolist()],
        "latent_there": joined.latent_J.tolist(),
        "cosine": [None if math.isnan(cosine) else cosine for cosine in joined.cosine_J.tolist()],
    }


def _describe(metrics: Mapping[str, Any]) -> str:
    """Return the main results in one line, for the log."""
    parts = [
        f"{metrics[f'latents{end}']} latents, NMSE {format_number(metrics[f'nmse{end}'], '.4f')} at L0 "
        f"{metrics[f'l0{end}']:.1f}, {format_number(metrics[f'nmse_at_k{end}'], '.4f')} at k"
        for end in ("", "_smallest", "_largest")
    ]
    return f"joined {parts[0]}; smallest SAE {parts[1]}; largest {parts[2]}"


def _log_run(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log the table of SAEs to a W&B run."""
    run.table("saes", list(rows[0]), [list(row.values()) for row in rows])
