"""Task `meta_sae`: an SAE of another SAE's decoder directions, and what it says of that one's latents."""

import logging
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config import Config
from sae_sweeps.config.studies import MetaConfig
from sae_sweeps.evaluation.evaluate import evaluate
from sae_sweeps.formats import saelens
from sae_sweeps.formats.layout import OF_DIRECTIONS
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.saes import SAE, BatchTopKSAE
from sae_sweeps.studies import decomposition_tables, figures, latent_tables
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.meta_sae import (
    build_trainer,
    compute_explained_share,
    compute_explained_variance,
    decompose,
    expand_to_all_latents,
    orthogonal_matching_pursuit,
    replace_directions,
    set_threshold,
    shuffle_directions,
)
from sae_sweeps.studies.top_activations import compute_meta_activations
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.saved_saes import SavedSAE, group_by_settings
from sae_sweeps.tasks.study import Study, collect_saved, describe_unfinished, find_named, run_studies
from sae_sweeps.tracking.run import Run
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import Line, MetricsFile, read_lines
from sae_sweeps.training.trainer import train

log = logging.getLogger(__name__)

LOG_EVERY = 50  # steps
CONTROL, CHECKPOINT, CURVE, DECOMPOSED = "control", "checkpoint", "metrics.jsonl", "decomposed.json"


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """The SAEs that a command is about, and what is to be said of those that cannot be studied.

    Raises: ConfigError if an SAE is named that is not there.
    """
    given, skipped_reason = find_named(command), ""
    if given:
        of = Sweep(given[0].folder.parent.parent)  # where its smaller ones are, if it is a point of a sweep
        everyone, undone = collect_saved(of) if of.exists() else ([], [])
        groups = [group for group in group_by_settings(everyone) if given[0].folder in [one.folder for one in group]]
        of_targets = [(given[0], groups[0] if groups else given)]
    else:
        everyone, undone = collect_saved(sweep)
        of_targets = [(max(group, key=_size_of), group) for group in group_by_settings(everyone)]
        skipped_reason = describe_unfinished([target.name for target, _ in of_targets if target.name in undone])
    found = []
    for target, group in of_targets:
        if given or target.name not in undone:
            below = [one for one in group if _size_of(one) < _size_of(target)]
            smaller = [one for one in below if one.name not in undone]
            if len(smaller) < len(below):
                names = [one.name for one in below if one.name in undone]
                log.warning("%s: without smaller SAEs that are not done: %s", target.name, ", ".join(names))
            found.append(_study(sweep, command, target, sorted(smaller, key=_size_of)))
    return found, skipped_reason


def _size_of(one: SavedSAE) -> int:
    return one.config.dict_size


def _study(sweep: Sweep, command: Config, target: SavedSAE, smaller: list[SavedSAE]) -> Study:
    saved = {"sae": target, **{f"smaller_{one.config.dict_size}": one for one in smaller}}
    settings = {**asdict(command.meta), "latents": asdict(command.latents)}
    title = f"{target.title}-meta{command.meta.dict_size or ''}-k{command.meta.k}"
    return Study.from_command("meta_sae", sweep, command, title, saved, settings)


def run(sweep: Sweep, config: Config) -> list[str]:
    """Decompose the largest SAEs. Returns why those that failed have failed."""
    found, skipped_reason = plan_studies(sweep, config)
    return run_studies(found, _decompose, skipped_reason)


def _decompose(study: Study, shown: PointProgress) -> None:
    began = time.perf_counter()
    source, settings = study.load_source(), study.settings
    sae = study.load_sae("sae", source)
    top, tokens_NS = latent_tables.collect_top_activations(source, sae, settings["latents"], shown)
    latents_A = _choose_latents(study, sae, top.fired)
    directions_AD = torch.nn.functional.normalize(sae.W_dec.detach()[latents_A], dim=1)
    size = _choose_dict_size(directions_AD, settings)
    of_meta = MetaConfig(**{name: value for name, value in settings.items() if name != "latents"} | {"dict_size": size})
    meta = _train(study.folder, directions_AD, of_meta, shown)
    origin = {"k": meta.k, "seed": settings["seed"]}
    saelens.write(
        study.folder / "sae", meta.for_inference(), {OF_DIRECTIONS: study.saved["sae"].name, "sae_sweeps": origin}
    )
    shown.stage("training on shuffled directions, the control")
    control_AD = shuffle_directions(directions_AD, settings["seed"])
    control = _train(study.folder / CONTROL, control_AD, of_meta, shown)

    shown.stage("comparing with smaller SAEs")
    kept, reconstructed_AD = decompose(meta, directions_AD), meta(directions_AD)
    smaller, matches = _compare_smaller(study, meta, directions_AD)
    pursued_AD = orthogonal_matching_pursuit(directions_AD, meta.W_dec.detach(), settings["k"])
    metrics: dict[str, Any] = {
        "latents": sae.dict_size,
        "decomposed": len(latents_A),
        "never_active": int((top.fired == 0).sum()),
        "meta_latents": meta.dict_size,
        "meta_latents_unused": int((torch.bincount(kept.col_N, minlength=meta.dict_size) == 0).sum()),
        "l0": len(kept.value) / len(latents_A),
        "explained_variance": compute_explained_variance(directions_AD, reconstructed_AD),
        "explained_variance_shuffled": compute_explained_variance(control_AD, control(control_AD)),
        "explained_variance_pursuit": compute_explained_variance(directions_AD, pursued_AD),
        **{f"explained_variance_{part}": of["explained_variance"] for part, of in smaller.items()},
    }
    shown.stage("evaluating with the directions replaced")
    data = source.held_out(study.config.evaluation.tokens)
    changed = replace_directions(sae, latents_A, reconstructed_AD)
    for when, evaluated in (
        ("before", evaluate(sae, source.model, data)),
        ("after", evaluate(changed, source.model, data)),
    ):
        metrics |= {f"{name}_{when}": evaluated[name] for name in ("nmse", "ce_degradation")}

    shown.stage("reading the text for the meta-latents")
    whole = expand_to_all_latents(kept, latents_A, sae.dict_size)
    explained_F = torch.full((sae.dict_size,), math.nan, device=latents_A.device)
    explained_F[latents_A] = compute_explained_share(directions_AD, reconstructed_AD)
    of_text = settings["latents"]
    rows = latent_tables.build_rows(source, top, tokens_NS, sae.W_dec.detach(), of_text, shown)
    decomposition_tables.write_latents(study.folder, rows, whole, explained_F)
    meta_top, _ = latent_tables.collect_top_activations(
        source, sae, of_text, shown, lambda active: compute_meta_activations(active, whole)
    )
    rows = latent_tables.build_rows(source, meta_top, tokens_NS, meta.W_dec.detach(), of_text, shown)
    decomposition_tables.write_meta_latents(study.folder, rows, whole, matches)
    decomposition_tables.write_examples(study.folder, study.name, top.seen, settings["seed"])

    parts = torch.bincount(kept.crow_B1.diff().long()).tolist()  # how many latents have 0, 1, 2, ... meta-latents
    content = {"smaller": smaller, "meta_latents_per_latent": parts, "seconds": time.perf_counter() - began}
    cosines = {name: cosine.cpu().numpy() for name, (cosine, _) in matches.items()}
    pictures = figures.plot_meta_sae(study.folder, study.name, metrics, content, cosines)
    study.write_results(metrics, **content)
    log.info("%s: %s", study.name, summarize(metrics))
    shutil.rmtree(study.folder / CONTROL / CHECKPOINT, ignore_errors=True)
    curve = read_lines(study.folder / CURVE)
    study.track("step", lambda run: _log_run(run, curve, content, explained_F[latents_A], pictures), metrics)


def summarize(metrics: dict[str, Any]) -> str:
    """A line on what came out."""
    explained, control = metrics["explained_variance"], metrics["explained_variance_shuffled"]
    return (
        f"{metrics['meta_latents']} meta-latents explain {explained:.1%} of the variance of {metrics['decomposed']} "
        f"directions (shuffled: {control:.1%}); CE {metrics['ce_degradation_before']:+.3f} -> "
        f"{metrics['ce_degradation_after']:+.3f} with the directions replaced"
    )


def _choose_latents(study: Study, sae: SAE, fired_F: Tensor) -> Tensor:
    """The latents whose directions are decomposed, (A,). They are kept from the first run on: another device may find
    another latent active, and a training that goes on is of these.

    Raises: ConfigError if no latent is active.
    """
    file = study.folder / DECOMPOSED
    latents = read_json(file)
    if latents is None:
        everyone = study.settings["include_dead"]
        latents = list(range(sae.dict_size)) if everyone else (fired_F > 0).nonzero().squeeze(1).tolist()
        write_json(file, latents)
    if not latents:
        tokens = study.settings["latents"]["tokens"]
        fix = "more of them, or meta.include_dead=true"
        raise ConfigError("latents.tokens", tokens, f"no latent of {study.saved['sae'].name} is active in them", fix)
    if left_out := sae.dict_size - len(latents):
        said = "%s: %s left out, active nowhere in the text (meta.include_dead=true takes them in)"
        log.info(said, study.name, pluralize(left_out, "latent"))
    return torch.tensor(latents, device=fired_F.device)


def _choose_dict_size(directions_AD: Tensor, settings: dict[str, Any]) -> int:
    """How many meta-latents there are to be. Raises: ConfigError if that is more than there are directions."""
    quarter = max(1, len(directions_AD) // 4)
    size = quarter if settings["dict_size"] is None else settings["dict_size"]
    if not 0 < size <= len(directions_AD):
        problem = f"there are only {len(directions_AD)} decoder directions to learn from"
        raise ConfigError("meta.dict_size", size, problem, f"meta.dict_size={quarter}")
    return size


def _train(folder: Path, directions_AD: Tensor, settings: MetaConfig, shown: PointProgress) -> BatchTopKSAE:
    """A meta-SAE, trained from its newest state on. Raises: Stopped if told to stop, with the state saved."""
    trainer, stream = build_trainer(directions_AD, settings)
    steps, tokens = trainer.config.steps, trainer.config.tokens
    states = folder / CHECKPOINT
    if (state := checkpoints.load_newest(states)) is not None:
        trainer.load_state(state)
    if 0 < trainer.steps_done < steps:
        log.info("%s: goes on at step %d of %d", folder, trainer.steps_done, steps)
    folder.mkdir(parents=True, exist_ok=True)
    curve = MetricsFile(folder / CURVE, trainer.steps_done)
    spread = (directions_AD - directions_AD.mean(0)).square().mean().item()
    for _, taken in train([trainer], stream):
        for step in taken:
            done = trainer.steps_done
            shown.progress(trainer.tokens_done, tokens, step.loss, step.l0, "directions")
            if done % LOG_EVERY == 0 or trainer.finished:
                explained = 1 - step.mse.item() / spread
                curve.append({"step": done, "explained_variance": explained, "l0": step.l0.item()})
            if done % settings.checkpoint_every == 0 or trainer.finished:
                checkpoints.save(states, done, trainer.state())
            try:
                signals.raise_if_stopped()
            except signals.Stopped:
                checkpoints.save(states, done, trainer.state())
                raise
    assert isinstance(trainer.sae, BatchTopKSAE), "made as one"
    set_threshold(trainer.sae, directions_AD)
    return trainer.sae


def _compare_smaller(
    study: Study, meta: SAE, directions_AD: Tensor
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[Tensor, Tensor]]]:
    """Of each smaller SAE: how much its decoder explains with k directions for each, and how alike it is to the
    meta-latents, beside random directions. And the best match (cosine, latent) of each meta-latent in it."""
    found, matches = {}, {}
    W_dec = meta.W_dec.detach()
    random_MD = shuffle_directions(W_dec, study.settings["seed"])
    for part, saved in study.saved.items():
        if part == "sae":
            continue
        atoms = saved.load(W_dec.device).W_dec.detach()
        best = compare(W_dec, atoms).left
        matches[saved.name] = (best.cosine, best.index)
        found[part] = {
            **saved.described(),
            "explained_variance": compute_explained_variance(
                directions_AD, orthogonal_matching_pursuit(directions_AD, atoms, study.settings["k"])
            ),
            "best_match_mean": best.cosine.mean().item(),
            "best_match_mean_of_random": compare(random_MD, atoms).left.cosine.mean().item(),
        }
    return found, matches


def _log_run(run: Run, curve: list[Line], content: dict[str, Any], explained_A: Tensor, pictures: list[Path]) -> None:
    """The study's run in W&B: its curve, tables, histograms and figures."""
    for line in curve:
        run.log(line)
    run.histogram("explained", explained_A.cpu().numpy())
    parts = content["meta_latents_per_latent"]
    run.table("meta_latents_per_latent", ["meta_latents", "latents"], [list(row) for row in enumerate(parts)])
    if content["smaller"]:
        rows = [{k: v for k, v in one.items() if k != "folder"} for one in content["smaller"].values()]
        run.table("smaller", list(rows[0]), [list(row.values()) for row in rows])
    for picture in pictures:
        run.image(picture)
