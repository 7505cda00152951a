"""Task `match`: how far SAEs that differ only in seed, in size or in hook have the same latents."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array

from sae_sweeps.activations.source import Source
from sae_sweeps.config import Config
from sae_sweeps.evaluation.ratios import format_number
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import write_table
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.studies.correlation import (
    Correlated,
    collect_activations,
    correlate,
    correlate_by_chance,
    summarise_correlations,
)
from sae_sweeps.studies.directions import Matches
from sae_sweeps.studies.matching import match
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.sae_groups import group_by_settings, pair_by_setting
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, collect_done
from sae_sweeps.tracking.run import Run

log = logging.getLogger(__name__)

DIFFERING = ("dict_size", "dataset.seed", "seed", "model.hook")  # matched are SAEs that differ in one of these
SAME_START = ("dataset.seed", "model.hook")  # SAEs that differ in one of these started from the same weights
MEANS = (  # of a pair, averaged over the pairs that differ in one setting
    "paired_mean", "paired_mean_random", "paired_share", "right_nearest_mean", "right_correlation_mean",
    "correlation_mean_chance",
)  # fmt: skip
SCHEMA = pa.schema(
    [
        ("point", pa.string()),
        ("latent", pa.int32()),
        ("frequency", pa.float32()),  # share of the held-out activations on which it is active
        ("other", pa.string()),  # the point whose latents this one is compared with
        ("cosine", pa.float32()),  # the largest decoder cosine with one of them
        ("nearest", pa.int32()),  # the latent that has it
        ("correlation", pa.float32()),  # the largest correlation of its activations with those of one of them
        ("correlated", pa.int32()),  # the latent that has it
    ]
)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return a study per group of trained SAEs that differ only in seeds, size and hook, and what was skipped.

    That is a sentence on skipped points, empty if there are none.
    """
    done, skipped = collect_done(sweep)
    groups = [group for group in group_by_settings(done, DIFFERING) if any(pair_by_setting(group, DIFFERING))]
    if not groups:
        skipped = (
            skipped
            or f"no two SAEs of sweep {sweep.name} differ only in seed, only in dict_size, or only in model.hook"
        )
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
    source = study.load_activations()
    saes = {saved.name: study.load_sae(part, source) for part, saved in study.saved.items()}
    acts = _collect_activations(study, source, saes, display)
    if silent := [name for name, acts_AF in acts.items() if not acts_AF.nnz]:
        problem = f"no latent of {silent[0]} is active on any of these tokens, so none can be matched"
        raise ConfigError("stitch.tokens", study.settings["tokens"], problem, "set more tokens")
    rows, tables = [], []
    for left, right, differing in pair_by_setting([*study.saved.values()], DIFFERING):
        display.show_stage(f"matching {left.title} with {right.title}")
        row, latents = _match_pair(study, [left.name, right.name], saes, acts)
        rows.append({"differing": differing, "same_start": differing in SAME_START, **row})
        tables += latents
    write_table(study.folder / "latents.parquet", SCHEMA, tables)
    metrics = summarise_rows(rows)
    study.write_results(metrics, pairs=rows, seconds=time.perf_counter() - started)
    log.info("%s: %s", study.name, _describe(metrics))
    study.track("step", lambda run: _log_run(run, rows), metrics)


def _collect_activations(
    study: Study, source: Source, saes: Mapping[str, InferenceSAE], display: PointProgress
) -> dict[str, csr_array]:
    """Return the activations (A, F) of each SAE's latents in the held-out text, by its name."""
    by_hook: dict[str, list[str]] = {}
    for saved in study.saved.values():
        by_hook.setdefault(saved.config.model.hook, []).append(saved.name)
    groups = {hook: [saes[name] for name in names] for hook, names in by_hook.items()}
    found = collect_activations(source, groups, study.settings["tokens"], progress_callback(display, "sequences"))
    return {name: acts_AF for hook, names in by_hook.items() for name, acts_AF in zip(names, found[hook], strict=True)}


def _match_pair(
    study: Study, names: list[str], saes: Mapping[str, InferenceSAE], acts: Mapping[str, csr_array]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Match the active latents of two SAEs. Returns a row of results.json, and rows of latents.parquet for each side.

    Decoder directions of SAEs that started from the same weights resemble each other more than by chance.
    """
    frequencies = [(acts[name] != 0).mean(0) for name in names]
    alive = [frequency_F.nonzero()[0] for frequency_F in frequencies]
    left_LD, right_RD = (
        saes[name].W_dec.detach()[torch.from_numpy(latents)] for name, latents in zip(names, alive, strict=True)
    )
    left_AL, right_AR = (acts[name][:, latents] for name, latents in zip(names, alive, strict=True))
    seed = study.settings["seed"]
    found, correlated = match(left_LD, right_RD, seed), correlate(left_AL, right_AR)
    row = {
        "left": names[0],
        "right": names[1],
        "left_active": len(alive[0]),
        "right_active": len(alive[1]),
        **found.summarise(study.settings["threshold"]),
        **summarise_correlations(found, correlated, correlate_by_chance(left_AL, right_AR, seed)),
    }
    sides = enumerate((found.left, found.right))
    return row, [
        _list_latents(names, side, alive, frequencies[side], nearest, correlated[side]) for side, nearest in sides
    ]


def _list_latents(
    names: Sequence[str],
    side: int,
    alive: Sequence[np.ndarray],
    frequency_F: np.ndarray,
    nearest: Matches,
    correlated: Correlated,
) -> dict[str, Any]:
    """Return rows of latents.parquet for the active latents of one side of a pair, 0 (left) or 1 (right)."""
    other = alive[1 - side]
    return {
        "point": [names[side]] * len(alive[side]),
        "latent": alive[side].astype(np.int32),
        "frequency": frequency_F[alive[side]].astype(np.float32),
        "other": [names[1 - side]] * len(alive[side]),
        "cosine": nearest.cosine.float().cpu().numpy(),
        "nearest": other[nearest.index.cpu().numpy()].astype(np.int32),
        "correlation": correlated.value.astype(np.float32),
        "correlated": other[correlated.index].astype(np.int32),
    }


def summarise_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of a study: the number of pairs by the setting that differs, and the means of their values."""
    metrics: dict[str, Any] = {}
    for setting in DIFFERING:
        if alike := [row for row in rows if row["differing"] == setting]:
            end = setting.replace(".", "_")
            metrics[f"pairs_{end}"] = len(alike)
            for name in MEANS:
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
