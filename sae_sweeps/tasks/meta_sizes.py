"""Task `meta_sizes`: one meta-SAE over the decoder directions of SAEs that differ only in size (arXiv:2502.04878)."""

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config import Config
from sae_sweeps.evaluation.ratios import format_number
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.studies import sizes_tables
from sae_sweeps.studies.frequencies import count_active
from sae_sweeps.studies.meta_sae import MetaSAE, expand_to_all_latents
from sae_sweeps.studies.meta_sizes import Stack, compute_shares, count_uses, describe_saes
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.sae_groups import group_by_settings
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.meta_training import CHECKPOINT, CONTROL, CURVE, choose_latents, train_with_control
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, collect_done
from sae_sweeps.tracking.run import Run
from sae_sweeps.training.curve import Line, read_lines

log = logging.getLogger(__name__)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return a study per group of trained SAEs that differ only in size, and a sentence on skipped points, or ""."""
    done, skipped = collect_done(sweep)
    studies = [_plan_study(sweep, command, group) for group in group_by_settings(done) if len(group) > 1]
    if not studies:
        skipped = skipped or f"no two SAEs of sweep {sweep.name} differ only in dict_size"
    return studies, skipped


def _plan_study(sweep: Sweep, command: Config, group: Sequence[SavedSAE]) -> Study:
    roles = {f"size_{one.config.dict_size}": one for one in group}
    title = f"{group[0].title}--{group[-1].title}-meta{command.meta.dict_size or ''}-k{command.meta.k}"
    settings = {**asdict(command.meta), "latents": {"tokens": command.latents.tokens}}
    return Study.from_command("meta_sizes", sweep, command, title, roles, settings)


def run(sweep: Sweep, config: Config) -> list[str]:
    """Decompose the SAEs of each chain of sizes with one meta-SAE. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    return run_studies(studies, _decompose, skipped_reason)


def _decompose(study: Study, display: PointProgress) -> None:
    """Train and measure one meta-SAE on the decoder directions of all sizes; write tables and results.json."""
    started = time.perf_counter()
    stack, W_dec_FD, is_active_F, seen = _read_saes(study, display)
    latents_A = choose_latents(study, is_active_F, stack.names)
    meta, control = train_with_control(study, W_dec_FD, latents_A, stack.names, display)

    display.show_stage("comparing the sizes")
    sae_A, count = stack.find_sae(latents_A), len(stack.names)
    uses_SM, shuffled_SM = (count_uses(one.weights, sae_A, count) for one in (meta, control))
    metrics = {**_measure(meta, control, is_active_F, uses_SM), "activations": seen}
    rows = describe_saes(stack, meta, control, is_active_F)
    _write_tables(study, stack, meta)
    shared = {"shared": compute_shares(uses_SM), "shared_shuffled": compute_shares(shuffled_SM)}
    study.write_results(metrics, sizes=rows, **shared, seconds=time.perf_counter() - started)
    log.info("%s: %s", study.name, summarize(metrics, rows))
    shutil.rmtree(study.folder / CONTROL / CHECKPOINT, ignore_errors=True)
    curve = read_lines(study.folder / CURVE)
    study.track("step", lambda run: _log_run(run, curve, rows, shared["shared"], meta.explained_A), metrics)


def _read_saes(study: Study, display: PointProgress) -> tuple[Stack, Tensor, Tensor, int]:
    """Return the latents of all sizes, their decoder directions (F, D), which are active in the text, bool (F,), and
    the number of activations read. Raises: Stopped on a stop signal."""
    source = study.load_activations()
    saes = [study.load_sae(part, source) for part in study.saved]
    stack = Stack([one.name for one in study.saved.values()], [sae.dict_size for sae in saes])
    display.show_stage("reading the text")
    tokens = study.settings["latents"]["tokens"]
    fired, seen = count_active(source, saes, tokens, progress_callback(display, "sequences"))
    return stack, torch.cat([sae.W_dec.detach() for sae in saes]), torch.cat(fired) > 0, seen


def _measure(meta: MetaSAE, control: MetaSAE, is_active_F: Tensor, uses_SM: Tensor) -> dict[str, Any]:
    """Return the metrics of the meta-SAE over all sizes.

    is_active_F (F,): which latents of all sizes are active in the text
    uses_SM (S, M): how many latents of each of S sizes use each of M meta-latents
    """
    return {
        "latents": len(is_active_F),
        "decomposed": len(meta.latents_A),
        "never_active": int((~is_active_F).sum()),
        "meta_latents": meta.sae.dict_size,
        "meta_latents_unused": int((uses_SM.sum(0) == 0).sum()),
        "meta_latents_of_all_sizes": int((uses_SM > 0).all(0).sum()),
        "l0": len(meta.weights.value) / len(meta.latents_A),
        "explained_variance": meta.explained_variance,
        "explained_variance_shuffled": control.explained_variance,
    }


def _write_tables(study: Study, stack: Stack, meta: MetaSAE) -> None:
    """Write latents.parquet and meta_latents.parquet."""
    count = sum(stack.sizes)
    weights = expand_to_all_latents(meta.weights, meta.latents_A, count)
    explained_F = torch.full((count,), math.nan, device=meta.latents_A.device)
    explained_F[meta.latents_A] = meta.explained_A
    sizes_tables.write_latents(study.folder, stack, weights, explained_F)
    sizes_tables.write_meta_latents(study.folder, stack, weights)


def summarize(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the main results of a study in one line, for the log."""
    explained, control = (format_number(metrics[f"explained_variance{of}"], ".1%") for of in ("", "_shuffled"))
    used = ", ".join(f"{one['meta_latents']} by {one['dict_size']} latents" for one in rows)
    return (
        f"{metrics['meta_latents']} meta-latents explain {explained} of the variance of {metrics['decomposed']} "
        f"directions of {len(rows)} sizes (shuffled directions: {control}); {metrics['meta_latents_of_all_sizes']} are "
        f"used by all sizes: {used}"
    )


def _log_run(
    run: Run,
    curve: Sequence[Line],
    rows: Sequence[Mapping[str, Any]],
    shared: Sequence[Sequence[float | None]],
    explained_A: Tensor,
) -> None:
    """Log the training curve, the tables of sizes and of what they share, and a histogram to a W&B run."""
    for line in curve:
        run.log(line)
    run.histogram("explained", explained_A.cpu().numpy())
    shown = [name for name, value in rows[0].items() if not isinstance(value, (list, dict))]
    run.table("sizes", shown, [[one[name] for name in shown] for one in rows])
    sizes = [str(one["dict_size"]) for one in rows]
    run.table("shared", ["size", *sizes], [[size, *shares] for size, shares in zip(sizes, shared, strict=True)])
