"""Task `meta_sae`: decompose an SAE's decoder directions with a meta-SAE (arXiv:2502.04878, section 5)."""

import logging
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import Config
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.evaluation.ratios import format_number
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.saes import SAE
from sae_sweeps.studies import decomposition_tables, figures, latent_tables
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.meta_overlap import compare_equally_many, count_pairs, draw_directions, find_nearest_other
from sae_sweeps.studies.meta_sae import (
    MetaSAE,
    compute_explained_variance,
    expand_to_all_latents,
    orthogonal_matching_pursuit,
    shuffle_directions,
)
from sae_sweeps.studies.top_activations import TopActivations, compute_meta_activations
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.sae_groups import group_by_settings
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.meta_training import CHECKPOINT, CONTROL, CURVE, choose_latents, train_with_control
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, collect_saved, describe_unfinished, find_named
from sae_sweeps.tracking.run import Run
from sae_sweeps.training.curve import Line, read_lines

log = logging.getLogger(__name__)

OVERLAP = ("near_of_sharing", "near_of_all", "sharing_of_near", "sharing_of_all")  # shares of pairs of latents
# numbers about a smaller SAE that are metrics as well
COMPARED = (
    "explained_variance",
    "explained_variance_nearest",
    "near_of_sharing",
    "sharing_of_near",
    "near_of_sharing_equal",
    "near_of_all_equal",
)

# by name of a smaller SAE, the most similar latent of that SAE for each of M meta-latents: cosine (M,), number (M,)
Matches = dict[str, tuple[Tensor, Tensor]]


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return one study per SAE that the command selects, and one sentence on skipped points (empty if there are none).

    Without `saved=`, the largest SAE of each group of points that differ only in dict_size is selected.
    Raises: ConfigError if the SAE of `saved=` does not exist.
    """
    named, skipped_reason = find_named(command), ""
    if named:
        own_sweep = Sweep(named[0].folder.parent.parent)  # if the SAE is a point, smaller SAEs are in this sweep
        candidates, unfinished = collect_saved(own_sweep) if own_sweep.exists() else ([], [])
        groups = [group for group in group_by_settings(candidates) if named[0].folder in [one.folder for one in group]]
        targets = [(named[0], groups[0] if groups else named)]
    else:
        candidates, unfinished = collect_saved(sweep)
        targets = [(group[-1], group) for group in group_by_settings(candidates)]
        skipped_reason = describe_unfinished([target.name for target, _ in targets if target.name in unfinished])
    studies = []
    for target, group in targets:
        if named or target.name not in unfinished:
            below = [one for one in group if one.config.dict_size < target.config.dict_size]
            smaller = [one for one in below if one.name not in unfinished]
            if len(smaller) < len(below):
                names = [one.name for one in below if one.name in unfinished]
                message = "%s: the comparison leaves out smaller SAEs that are not trained yet: %s"
                log.warning(message, target.name, ", ".join(names))
            studies.append(_plan_study(sweep, command, target, smaller))
    return studies, skipped_reason


def _plan_study(sweep: Sweep, command: Config, target: SavedSAE, smaller: list[SavedSAE]) -> Study:
    saved = {"sae": target, **{f"smaller_{one.config.dict_size}": one for one in smaller}}
    settings = {**asdict(command.meta), "latents": command.latents.describe()}
    title = f"{target.title}-meta{command.meta.dict_size or ''}-k{command.meta.k}"
    return Study.from_command("meta_sae", sweep, command, title, saved, settings)


def run(sweep: Sweep, config: Config) -> list[str]:
    """Decompose each SAE that `config` selects with a meta-SAE. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    return run_studies(studies, _decompose, skipped_reason)


def _decompose(study: Study, display: PointProgress) -> None:
    """Train and measure a meta-SAE on an SAE's decoder directions; write tables, figures and results.json."""
    started = time.perf_counter()
    source = study.load_source()
    sae = study.load_sae("sae", source)
    top, tokens_NS = latent_tables.collect_top_activations(source, sae, study.settings["latents"], display)
    names = [study.saved["sae"].name]
    latents_A = choose_latents(study, top.fired > 0, names)
    meta, control = train_with_control(study, sae.W_dec.detach(), latents_A, names, display)

    display.show_stage("comparing with smaller SAEs")
    smaller, matches = _compare_smaller(study, meta)
    metrics = _measure(sae, top, meta, control)
    metrics |= {f"{name}_{part}": found[name] for name in COMPARED for part, found in smaller.items()}
    display.show_stage("evaluating with the directions replaced")
    metrics |= _evaluate_replacement(study, source, sae, meta)
    display.show_stage("reading the text for the meta-latents")
    _write_tables(study, source, sae, meta, (top, tokens_NS), matches, display)

    latents_by_count = torch.bincount(meta.weights.crow_Bp1.diff().long()).tolist()  # index: number of meta-latents
    content = {
        "smaller": smaller,
        "meta_latents_per_latent": latents_by_count,
        "seconds": time.perf_counter() - started,
    }
    cosines = {name: cosine.cpu().numpy() for name, (cosine, _) in matches.items()}
    pictures = figures.plot_meta_sae(study.folder, study.name, metrics, content, cosines)
    study.write_results(metrics, **content)
    log.info("%s: %s", study.name, summarize(metrics))
    shutil.rmtree(study.folder / CONTROL / CHECKPOINT, ignore_errors=True)
    curve = read_lines(study.folder / CURVE)
    study.track("step", lambda run: _log_run(run, curve, content, meta.explained_A, pictures), metrics)


def _measure(sae: SAE, top: TopActivations, meta: MetaSAE, control: MetaSAE) -> dict[str, Any]:
    """Return the metrics of the decomposition that need no language model: counts, L0 and explained variance."""
    atoms_MD, k = meta.sae.W_dec.detach(), meta.settings.k
    random_MD = draw_directions(len(atoms_MD), atoms_MD, meta.settings.seed)
    uses_M = torch.bincount(meta.weights.col_N, minlength=meta.sae.dict_size)
    return {
        "latents": sae.dict_size,
        "decomposed": len(meta.latents_A),
        "never_active": int((top.fired == 0).sum()),
        "activations": top.seen,
        "meta_latents": meta.sae.dict_size,
        "meta_latents_unused": int((uses_M == 0).sum()),
        "l0": len(meta.weights.value) / len(meta.latents_A),
        "explained_variance": meta.explained_variance,
        "explained_variance_shuffled": control.explained_variance,
        "explained_variance_pursuit": _explain_by_pursuit(meta, atoms_MD, k),
        "explained_variance_random": _explain_by_pursuit(meta, random_MD, k),
        "nearest_other_meta_latent_mean": find_nearest_other(atoms_MD).mean().item(),
        "nearest_other_latent_mean": find_nearest_other(meta.directions_AD).mean().item(),
    }


def _explain_by_pursuit(meta: MetaSAE, atoms_MD: Tensor, k: int) -> float | None:
    """Return the variance of the decomposed directions that k of the atoms (M, D) each explain."""
    pursued_AD = orthogonal_matching_pursuit(meta.directions_AD, atoms_MD, k)
    return compute_explained_variance(meta.directions_AD, pursued_AD)


def _evaluate_replacement(study: Study, source: ActivationSource, sae: SAE, meta: MetaSAE) -> dict[str, float | None]:
    """Return NMSE and CE degradation (nats per token) of the SAE with its own and with replaced decoder directions.

    Each decomposed direction is replaced by the meta-SAE's reconstruction. Keys end in `_before` and `_after`.
    """
    data = source.held_out(study.config.evaluation.tokens)
    before, after = (evaluate(one, source.model, data) for one in (sae, meta.replace_directions(sae)))
    return {
        f"{name}_{when}": metrics[name]
        for when, metrics in (("before", before), ("after", after))
        for name in ("nmse", "ce_degradation")
    }


def _write_tables(
    study: Study,
    source: ActivationSource,
    sae: SAE,
    meta: MetaSAE,
    activations: tuple[TopActivations, Tensor],
    matches: Matches,
    display: PointProgress,
) -> None:
    """Write latents.parquet, meta_latents.parquet and examples.md.

    activations: the latents' strongest activations, and the tokens of the text read, (N sequences, S tokens)
    matches: the most similar latent of each smaller SAE for each meta-latent
    """
    top, tokens_NS = activations
    settings = study.settings["latents"]
    weights = expand_to_all_latents(meta.weights, meta.latents_A, sae.dict_size)
    explained_F = torch.full((sae.dict_size,), math.nan, device=meta.latents_A.device)
    explained_F[meta.latents_A] = meta.explained_A
    rows = latent_tables.build_rows(source, top, tokens_NS, sae.W_dec.detach(), settings, display)
    decomposition_tables.write_latents(study.folder, rows, weights, explained_F)
    meta_top, _ = latent_tables.collect_top_activations(
        source, sae, settings, display, lambda active: compute_meta_activations(active, weights)
    )
    rows = latent_tables.build_rows(source, meta_top, tokens_NS, meta.sae.W_dec.detach(), settings, display)
    decomposition_tables.write_meta_latents(study.folder, rows, weights, matches)
    decomposition_tables.write_examples(study.folder, study.name, top.seen, study.settings["seed"])


def summarize(metrics: dict[str, Any]) -> str:
    """Return the main results of a meta-SAE study in one line, for the log."""
    explained, control = (format_number(metrics[f"explained_variance{of}"], ".1%") for of in ("", "_shuffled"))
    return (
        f"{metrics['meta_latents']} meta-latents explain {explained} of the variance of {metrics['decomposed']} "
        f"directions (shuffled directions: {control}); CE degradation {metrics['ce_degradation_before']:+.3f} -> "
        f"{metrics['ce_degradation_after']:+.3f} nats with the directions replaced"
    )


def _compare_smaller(study: Study, meta: MetaSAE) -> tuple[dict[str, dict[str, Any]], Matches]:
    """Return results per smaller SAE (keys smaller_<dict_size>), and the most similar latents for each meta-latent.

    The results: the variance of the decomposed directions that k decoder directions of the smaller SAE explain, k of
    all, or of those that are nearest to a meta-latent; the mean cosine of the best matches, both for meta-latents and
    for shuffled meta-latents; and the pairs of latents that share a meta-latent and a nearest latent (`Overlap`).
    """
    found: dict[str, dict[str, Any]] = {}
    matches: Matches = {}
    k, W_dec_MD = meta.settings.k, meta.sae.W_dec.detach()
    shuffled_MD = shuffle_directions(W_dec_MD, meta.settings.seed)
    for part, saved in study.saved.items():
        if part == "sae":
            continue
        atoms = saved.load(W_dec_MD.device).W_dec.detach()
        best = compare(W_dec_MD, atoms).left
        matches[saved.name] = (best.cosine, best.index)
        nearest = atoms[best.index.unique()]
        overlap = count_pairs(meta.weights, compare(meta.directions_AD, atoms).left.index)
        threshold, equal = compare_equally_many(meta.weights, meta.directions_AD, atoms)
        found[part] = {
            **saved.describe(),
            "explained_variance": _explain_by_pursuit(meta, atoms, k),
            "explained_variance_nearest": _explain_by_pursuit(meta, nearest, k),
            "nearest": len(nearest),
            **{name: getattr(overlap, name) for name in OVERLAP},
            "near_of_sharing_equal": equal.near_of_sharing,
            "near_of_all_equal": equal.near_of_all,
            "near_cosine_equal": threshold,
            "nearest_other_mean": find_nearest_other(atoms).mean().item(),
            "best_match_mean": best.cosine.mean().item(),
            "best_match_mean_of_random": compare(shuffled_MD, atoms).left.cosine.mean().item(),
        }
    return found, matches


def _log_run(run: Run, curve: list[Line], content: dict[str, Any], explained_A: Tensor, pictures: list[Path]) -> None:
    """Log the training curve, tables, a histogram and the figures of a meta-SAE study to a W&B run."""
    for line in curve:
        run.log(line)
    run.histogram("explained", explained_A.cpu().numpy())
    counts = content["meta_latents_per_latent"]
    run.table("meta_latents_per_latent", ["meta_latents", "latents"], [list(row) for row in enumerate(counts)])
    if content["smaller"]:
        rows = [{k: v for k, v in one.items() if k not in ("folder", "files")} for one in content["smaller"].values()]
        run.table("smaller", list(rows[0]), [list(row.values()) for row in rows])
    for picture in pictures:
        run.image(picture)
