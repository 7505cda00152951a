"""Task `stitch`: what the latents of a large SAE add to a small one (arXiv:2502.04878, section 4)."""

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import Config
from sae_sweeps.config.studies import StitchConfig
from sae_sweeps.evaluation.ratios import REASONS, format_number
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import write_table
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.saes import SAE
from sae_sweeps.studies import figures
from sae_sweeps.studies.directions import Labels, Matches
from sae_sweeps.studies.pair import Pair
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.sae_groups import pair_neighbours
from sae_sweeps.sweep.saved_saes import find_saved_sae
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, collect_saved, describe_unfinished, require_same_activation
from sae_sweeps.tracking.run import Run

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("cosine", pa.float32()),  # the largest decoder cosine with a latent of the other SAE
        ("nearest", pa.int32()),  # the latent of the other SAE with this cosine
        ("family", pa.int32()),  # family number at stitch.threshold; a family has the same number in both tables
        ("frequency", pa.float32()),  # share of the activations on which the latent is active
    ]
)
LARGE_SCHEMA = pa.schema([*SCHEMA, ("novel", pa.bool_()), ("mse_change", pa.float64())])
FAMILIES_SCHEMA = pa.schema(
    [
        ("small", pa.list_(pa.int32())),  # latents of the small SAE that a swap takes out
        ("large", pa.list_(pa.int32())),  # latents of the large SAE that it puts in
        ("mse_change", pa.float64()),  # of the small SAE, by this swap alone
        ("frequency", pa.float32()),  # share of the activations on which one of these latents is active
    ]
)


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return one study per pair of SAEs that the command selects, and one sentence on skipped pairs (empty if none).

    Raises: ConfigError if an SAE of `small=` or `large=` does not exist, or the two differ in model or hook.
    """
    unfinished: list[str] = []
    if command.small is not None or command.large is not None:
        pairs = [
            (find_saved_sae(str(command.small), "small", command), find_saved_sae(str(command.large), "large", command))
        ]
        require_same_activation(*pairs[0])
        sizes = [one.config.dict_size for one in pairs[0]]
        if sizes[0] > sizes[1]:
            message = "the SAE of small= has %d latents, more than the %d latents of large=; if unintended, swap them"
            log.warning(message, *sizes)
    else:
        saved, not_done = collect_saved(sweep)
        pairs = pair_neighbours(saved)
        wanted = {one.name for pair in pairs for one in pair}
        unfinished = [name for name in not_done if name in wanted]
        pairs = [(small, large) for small, large in pairs if not {small.name, large.name}.intersection(unfinished)]
    settings = asdict(command.stitch)
    studies = []
    for small, large in pairs:
        parts = {"large": large, "small": small}
        studies.append(Study.from_command("stitch", sweep, command, f"{small.title}--{large.title}", parts, settings))
    skipped_reason = describe_unfinished(unfinished)
    if not studies:
        skipped_reason = (
            skipped_reason
            or f"no two points of sweep {sweep.name} differ only in dict_size, so no pair can be stitched"
        )
    return studies, skipped_reason


def run(sweep: Sweep, config: Config) -> list[str]:
    """Stitch each pair of SAEs that `config` selects. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    return run_studies(studies, _stitch, skipped_reason)


def _stitch(study: Study, display: PointProgress) -> None:
    """Measure what the large SAE adds to the small one, and write tables, figures and results.json."""
    started = time.perf_counter()
    source, settings = study.load_source(), StitchConfig(**study.settings)
    small, large = (study.load_sae(part, source) for part in ("small", "large"))
    _require_same_normalization(study, small, large)
    pair = Pair(small, large, settings, progress_callback(display, "directions compared"))
    for _, x_BD in source.held_out_text(settings.tokens, progress_callback(display, "sequences")):
        pair.update(x_BD)
    display.show_stage("measuring the CE degradation along the interpolation")
    degradation = measure_ce_degradation(pair, source)

    metrics = pair.metrics | {"ce_small": degradation[0], "ce_large": degradation[-1]}
    details = pair.details
    details["curves"]["ce_degradation"] = {"positions": pair.ce_positions, "nats": degradation}
    latents = _write_tables(study, pair)
    pictures = figures.plot_stitching(study.folder, study.name, settings.threshold, latents, metrics, details)
    study.write_results(metrics, **details, seconds=time.perf_counter() - started)
    log.info("%s: %s", study.name, summarize(metrics))
    study.track("position", lambda run: _log_run(run, details, latents, pictures), metrics)


def measure_ce_degradation(pair: Pair, source: ActivationSource) -> list[float]:
    """Measure the CE degradation at the positions `pair.ce_positions` of the path from the small SAE to the large one.

    Returns nats per token, a value per position.
    Raises: Stopped on a stop signal.
    """
    data = source.held_out(min(pair.settings.ce_tokens, pair.settings.tokens))
    encoded = pair.encode(data.acts_AD)
    found = []
    for position in pair.ce_positions:
        signals.raise_if_stopped()
        found.append(data.cross_entropy_with(source.model, encoded.reconstruct(position)) - data.ce)
    return found


def summarize(metrics: dict[str, Any]) -> str:
    """Return the main results of a stitching study in one line, for the log."""
    auroc, best = metrics["auroc"], metrics["best_threshold"]
    prediction = f"AUROC none, because {REASONS['auroc']}" if auroc is None else f"AUROC {auroc:.3f}"
    return (
        f"{metrics['novel']} of {metrics['latents']} latents are novel; {prediction}"
        + (f", best threshold {best:.2f}" if best is not None else "")
        + f"; NMSE {format_number(metrics['nmse_small'], '.4f')} -> {format_number(metrics['nmse_novel_in'], '.4f')} "
        + f"with the novel latents inserted -> {format_number(metrics['nmse_large'], '.4f')}"
    )


def _require_same_normalization(study: Study, small: SAE, large: SAE) -> None:
    """Require that both SAEs normalise activations in the same way. Raises: ConfigError if they do not."""
    if small.normalization != large.normalization:
        saved, other = study.saved["small"], study.saved["large"]
        ways = f"this one uses {small.normalization!r} and {other.folder} uses {large.normalization!r}"
        problem = f"both SAEs must normalise activations in the same way, but {ways}"
        fix = "give two SAEs with the same normalisation"
        raise ConfigError(saved.setting, str(saved.folder), problem, fix)


def _write_tables(study: Study, pair: Pair) -> dict[str, np.ndarray]:
    """Write latents.parquet (of the large SAE), small_latents.parquet and families.parquet.

    Returns the columns of latents.parquet by name.
    """
    stitching, compared = pair.stitching, pair.compared
    families = compared.families[pair.settings.threshold]

    def build_columns(matches: Matches, family: Labels, fired: Tensor) -> dict[str, np.ndarray]:
        return {
            "latent": np.arange(len(family), dtype=np.int32),
            "cosine": matches.cosine.cpu().numpy(),
            "nearest": matches.index.int().cpu().numpy(),
            "family": family.astype(np.int32),
            "frequency": (fired / stitching.seen).float().cpu().numpy(),
        }

    small = build_columns(compared.left, families.left, stitching.fired_S)
    write_table(study.folder / "small_latents.parquet", SCHEMA, [small])
    large = build_columns(compared.right, families.right, stitching.fired_L)
    large |= {"novel": pair.novel_L.cpu().numpy(), "mse_change": stitching.change_L.cpu().numpy()}
    write_table(study.folder / "latents.parquet", LARGE_SCHEMA, [large])
    swaps = pair.swaps
    change, frequency = swaps.change_Q.cpu().numpy(), (swaps.fired_Q / stitching.seen).float().cpu().numpy()
    order = change.argsort(kind="stable")
    rows: dict[str, Any] = {"small": [swaps.small_Q[at] for at in order], "large": [swaps.large_Q[at] for at in order]}
    rows |= {"mse_change": change[order], "frequency": frequency[order]}
    write_table(study.folder / "families.parquet", FAMILIES_SCHEMA, [rows])
    return large


def _log_run(run: Run, details: dict[str, Any], latents: dict[str, np.ndarray], pictures: list[Path]) -> None:
    """Log the curves, tables, histograms and figures of a stitching study to a W&B run."""
    curves = details["curves"]
    degradation = dict(zip(curves["ce_degradation"]["positions"], curves["ce_degradation"]["nats"], strict=True))
    for name in ("interpolation", "reconstruction", "random"):
        curve = curves[name]
        for position, (nmse, l0) in enumerate(zip(curve["nmse"], curve["l0"], strict=True)):
            line = {"position": position, f"{name}/latents": curve["latents"][position]}
            line |= {f"{name}/nmse": nmse, f"{name}/l0": l0}
            if name == "interpolation" and position in degradation:
                line["interpolation/ce_degradation"] = degradation[position]
            run.log(line)
    for name in ("cosine", "mse_change", "frequency"):
        run.histogram(name, latents[name])
    rows = details["thresholds"]
    run.table("thresholds", list(rows[0]), [list(row.values()) for row in rows])
    run.table("latents", list(latents), list(zip(*(column.tolist() for column in latents.values()), strict=True)))
    run.table("families", ["small", "large", "count"], [list(size.values()) for size in details["families"]])
    for picture in pictures:
        run.image(picture)
