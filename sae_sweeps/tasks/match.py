"""Task `match`: how far SAEs that differ only in seed, or only in size, have the same latents."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor

from sae_sweeps.config import Config
from sae_sweeps.evaluation.ratios import format_number
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import write_table
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.studies.frequencies import count_active
from sae_sweeps.studies.matching import Match, match
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.sae_groups import group_by_settings, pair_by_setting
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, collect_done
from sae_sweeps.tracking.run import Run

log = logging.getLogger(__name__)

DIFFERING = ("dict_size", "dataset.seed", "seed")  # matched are SAEs that differ in one of these
SCHEMA = pa.schema(
    [
        ("point", pa.string()),
        ("latent", pa.int32()),
        ("frequency", pa.float32()),  # share of the held-out activations on which it is active
        ("other", pa.string()),  # the point whose latents this one is compared with
        ("cosine", pa.float32()),  # the largest decoder cosine with one of them
        ("nearest", pa.int32()),  # the latent that has it
    ]
)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return a study per group of trained SAEs that differ only in seeds and size, and a sentence on skipped points.

    The sentence is empty if no point is skipped.
    """
    done, skipped = collect_done(sweep)
    groups = [group for group in group_by_settings(done, DIFFERING) if any(pair_by_setting(group, DIFFERING))]
    if not groups:
        skipped = skipped or f"no two SAEs of sweep {sweep.name} differ only in seed, or only in dict_size"
    return [_plan_study(sweep, command, group) for group in groups], skipped


def _plan_study(sweep: Sweep, command: Config, group: Sequence[SavedSAE]) -> Study:
    roles = {f"sae_{number}": one for number, one in enumerate(group)}
    title = f"{group[0].title}--{group[-1].title}"
    settings = {"threshold": command.stitch.threshold, "tokens": command.stitch.tokens, "seed": command.stitch.seed}
    return Study.from_command("match", sweep, command, title, roles, settings)


def run(sweep: Sweep, config: Config) -> list[str]:
    """Match the SAEs of a sweep. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    return run_studies(studies, _match, skipped_reason)


def _match(study: Study, display: PointProgress) -> None:
    """Match all pairs of a study, and write latents.parquet and results.json."""
    started = time.perf_counter()
    source = study.load_source()
    saes = {saved.name: study.load_sae(part, source) for part, saved in study.saved.items()}
    on_progress = progress_callback(display, "sequences")
    fired, seen = count_active(source, [*saes.values()], study.settings["tokens"], on_progress)
    frequencies = {name: count / seen for name, count in zip(saes, fired, strict=True)}
    alive = {name: (frequency > 0).nonzero().squeeze(1) for name, frequency in frequencies.items()}
    if silent := [name for name, latents in alive.items() if not len(latents)]:
        problem = f"no latent of {silent[0]} is active on any of these tokens, so none can be matched"
        raise ConfigError("stitch.tokens", study.settings["tokens"], problem, "set more tokens")
    rows, tables = [], []
    for left, right, differing in pair_by_setting([*study.saved.values()], DIFFERING):
        display.show_stage(f"matching {left.title} with {right.title}")
        names = [left.name, right.name]
        directions = [saes[name].W_dec.detach()[alive[name]] for name in names]
        found = match(directions[0], directions[1], study.settings["seed"])
        rows.append(_describe_pair(study, left, right, differing, found))
        for (name, other), matches in zip((names, names[::-1]), (found.left, found.right), strict=True):
            nearest = alive[other][matches.index]
            tables.append(_list_latents(name, other, alive[name], frequencies[name], matches.cosine, nearest))
    write_table(study.folder / "latents.parquet", SCHEMA, tables)
    metrics = summarise_rows(rows)
    study.write_results(metrics, pairs=rows, seconds=time.perf_counter() - started)
    log.info("%s: %s", study.name, _describe(metrics))
    study.track("step", lambda run: _log_run(run, rows), metrics)


def _describe_pair(study: Study, left: SavedSAE, right: SavedSAE, differing: str, found: Match) -> dict[str, Any]:
    """Return a row of results.json.

    SAEs that differ in `dataset.seed` alone started from the same weights, so their latents resemble each other more.
    """
    return {
        "differing": differing,
        "same_start": differing == "dataset.seed",
        "left": left.name,
        "right": right.name,
        "left_active": len(found.left.cosine),
        "right_active": len(found.right.cosine),
        **found.summarise(study.settings["threshold"]),
    }


def _list_latents(
    name: str, other: str, latents_A: Tensor, frequency_F: Tensor, cosine_A: Tensor, nearest_A: Tensor
) -> dict[str, Any]:
    return {
        "point": [name] * len(latents_A),
        "latent": latents_A.int().cpu().numpy(),
        "frequency": frequency_F[latents_A].float().cpu().numpy(),
        "other": [other] * len(latents_A),
        "cosine": cosine_A.float().cpu().numpy(),
        "nearest": nearest_A.int().cpu().numpy(),
    }


def summarise_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of a study: the number of pairs by the setting that differs, and the means of their values."""
    metrics: dict[str, Any] = {}
    for setting in DIFFERING:
        if alike := [row for row in rows if row["differing"] == setting]:
            end = setting.replace(".", "_")
            metrics[f"pairs_{end}"] = len(alike)
            for name in ("paired_mean", "paired_mean_random", "paired_share", "right_nearest_mean"):
                values = [row[name] for row in alike if row[name] is not None]
                metrics[f"{name}_{end}"] = sum(values) / len(values) if values else None
    return metrics


def _describe(metrics: Mapping[str, Any]) -> str:
    """Return the main results in one line, for the log."""
    parts = []
    for name in metrics:
        if name.startswith("pairs_"):
            end = name.removeprefix("pairs_")
            cosine, random = (format_number(metrics[f"paired_mean{of}_{end}"], ".3f") for of in ("", "_random"))
            parts.append(
                f"{metrics[name]} pairs that differ in {end}: mean cosine one to one {cosine} (random {random})"
            )
    return "; ".join(parts)


def _log_run(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log the table of pairs to a W&B run."""
    run.table("pairs", list(rows[0]), [list(row.values()) for row in rows])
