"""Task `stitch`: what the latents of a large SAE bring that a small one lacks."""

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sae_sweeps import figures, stopping
from sae_sweeps.config import Config
from sae_sweeps.display import PointDisplay
from sae_sweeps.errors import ConfigError
from sae_sweeps.saes import SAE
from sae_sweeps.saved import find, neighbours
from sae_sweeps.studies.directions import Comparison, compare
from sae_sweeps.studies.paths import Path, insertion, insertion_by, interpolation
from sae_sweeps.studies.stitching import Curve, Prediction, Stitching, Walk, family_sizes, prediction, rates
from sae_sweeps.sweep import Sweep
from sae_sweeps.tables import write_table
from sae_sweeps.tasks.study import Study, require_alike, run_studies, saved_of

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("cosine", pa.float32()),  # the largest with a latent of the other SAE
        ("nearest", pa.int32()),  # which that is
        ("family", pa.int32()),  # at the threshold; one number for both SAEs
        ("frequency", pa.float32()),  # share of the activations on which it is active
    ]
)
LARGE_SCHEMA = pa.schema([*SCHEMA, ("novel", pa.bool_()), ("mse_change", pa.float64())])


def studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """The pairs that a command is about, and what is to be said of those that cannot be studied.

    Raises: ConfigError if SAEs are named that are not there or cannot be compared.
    """
    missing: list[str] = []
    if command.small is not None or command.large is not None:
        pairs = [(find(str(command.small), "small", command), find(str(command.large), "large", command))]
        require_alike(*pairs[0])
    else:
        done, missing = saved_of(sweep)
        pairs = neighbours(done)
    settings = asdict(command.stitch)
    found = []
    for small, large in pairs:
        saved = {"large": large, "small": small}
        found.append(Study.of("stitch", sweep, command, f"{small.title}--{large.title}", saved, settings))
    said = f"not done: {', '.join(missing)}" if missing else ""
    if not found:
        said = said or f"no two points of {sweep.name} differ in dict_size alone"
    return found, said


def run_sweep(sweep: Sweep, config: Config) -> list[str]:
    """Stitch all pairs. Returns why those that failed have failed."""
    found, missing = studies(sweep, config)
    return run_studies(found, _stitch, missing)


@dataclass(frozen=True)
class _Paths:
    """The paths that are measured, by name; of the interpolation, where the novel latents are all in."""

    interpolation: Path
    reconstruction: Path
    random: Path
    by_cosine: Path
    novel_in: int

    def all(self) -> dict[str, Path]:
        return {
            "interpolation": self.interpolation,
            "reconstruction": self.reconstruction,
            "random": self.random,
            "by_cosine": self.by_cosine,
        }


def _stitch(study: Study, shown: PointDisplay) -> None:
    began = time.perf_counter()
    inputs, settings = study.inputs(), study.settings
    small, large = (study.saved[part].load(inputs.device) for part in ("small", "large"))
    _require_stitchable(study, small, large)
    thresholds = sorted({*settings["thresholds"], settings["threshold"]})

    def told(done: int, total: int) -> None:
        shown.waiting(done, total, "directions compared")
        stopping.check()

    compared = compare(small.W_dec.detach(), large.W_dec.detach(), thresholds, told)
    paths = _paths(compared, settings, thresholds)

    def told_of_text(done: int, total: int) -> None:
        shown.waiting(done, total, "sequences")
        stopping.check()

    stitching = Stitching(small, large, list(paths.all().values()))
    for _, x_BD in inputs.held_out_text(settings["tokens"], told_of_text):
        stitching.see(x_BD)
    curves = dict(zip(paths.all(), stitching.curves(), strict=True))
    cosine_L = compared.right.cosine
    predicted = prediction(cosine_L, stitching.change_L, stitching.fired_L)

    shown.stage("measuring the CE degradation on the way")
    data = inputs.held_out(min(settings["ce_tokens"], settings["tokens"]))
    positions = ce_positions(paths.interpolation.length, paths.novel_in, settings["ce_positions"])
    degradation = []
    walk = Walk(paths.interpolation, small, large, data.acts_AD)
    for position in positions:
        stopping.check()
        degradation.append(data.cross_entropy_with(inputs.model, walk.at(position)) - data.ce)

    metrics = _metrics(compared, stitching, curves, predicted, paths, settings)
    metrics |= {"ce_small": degradation[0], "ce_large": degradation[-1]}
    by_threshold = _by_threshold(compared, stitching, curves["by_cosine"], thresholds)
    content = {
        "curves": {
            **{name: asdict(curve) for name, curve in curves.items()},
            "ce_degradation": {"positions": positions, "nats": degradation},
            "novel_in": paths.novel_in,
        },
        "thresholds": by_threshold,
        "families": family_sizes(compared.families[settings["threshold"]]),
        "prediction": _thinned(predicted),
        "seconds": time.perf_counter() - began,
    }
    latents = _tables(study, compared, stitching, settings["threshold"])
    pictures = figures.stitching(study.folder, study.name, settings["threshold"], latents, metrics, content)
    _track(study, metrics, content, latents, pictures)
    study.write_results(metrics, **content)
    log.info("%s: %s", study.name, said_of(metrics))


def said_of(metrics: dict[str, Any]) -> str:
    """A line on what came out."""
    auroc, best = metrics["auroc"], metrics["best_threshold"]
    said = "all active latents change the error in one direction" if auroc is None else f"AUROC {auroc:.3f}"
    return (
        f"{metrics['novel']} of {metrics['latents']} latents are novel; {said}"
        + (f", best threshold {best:.2f}" if best is not None else "")
        + f"; NMSE {metrics['nmse_small']:.4f} -> {metrics['nmse_novel_in']:.4f} with the novel latents put in"
        + f" -> {metrics['nmse_large']:.4f}"
    )


def _require_stitchable(study: Study, small: SAE, large: SAE) -> None:
    for setting, here, there in (
        ("sae.normalize_input", small.normalize_input, large.normalize_input),
        ("the width of its activations", small.d_in, large.d_in),
    ):
        if here != there:
            one = study.saved["small"]
            problem = f"{setting} is {here}, that of {study.saved['large'].folder} {there}"
            raise ConfigError(one.setting, str(one.folder), problem, "stitch SAEs that see activations alike")


def _paths(compared: Comparison, settings: dict[str, Any], thresholds: list[float]) -> _Paths:
    cosine_L = compared.right.cosine
    small, large, positions = len(compared.left.cosine), len(cosine_L), settings["positions"]
    novel = (cosine_L < settings["threshold"]).nonzero().squeeze(1)
    alike = (cosine_L >= settings["threshold"]).nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(settings["seed"])

    def drawn(of: Tensor) -> Tensor:
        return of[torch.randperm(len(of), generator=generator).to(of.device)]

    way, novel_in = interpolation(
        novel[cosine_L[novel].argsort(stable=True)], compared.families[settings["threshold"]], small, large, positions
    )
    everyone = torch.arange(large, device=cosine_L.device)
    return _Paths(
        interpolation=way,
        reconstruction=insertion(drawn(alike), small, large, positions),
        random=insertion(drawn(everyone), small, large, positions),
        by_cosine=insertion_by(cosine_L, thresholds, small),
        novel_in=novel_in,
    )


def ce_positions(length: int, novel_in: int, count: int) -> list[int]:
    """About `count` positions of the interpolation: its ends, where the novel latents are in, where all families are
    swapped, and others."""
    even = np.linspace(0, length, max(2, count - 2)).round().astype(int)
    return sorted({*even.tolist(), novel_in, length - 1})


def _metrics(
    compared: Comparison,
    stitching: Stitching,
    curves: dict[str, Curve],
    predicted: Prediction,
    paths: _Paths,
    settings: dict[str, Any],
) -> dict[str, Any]:
    cosine_L = compared.right.cosine
    novel_L, fired_L = cosine_L < settings["threshold"], stitching.fired_L > 0
    lowers_L = stitching.change_L < 0
    way = curves["interpolation"]

    def share(of_L: Tensor) -> float | None:
        return lowers_L[of_L].double().mean().item() if of_L.any() else None

    return {
        "activations": stitching.seen,
        "latents": len(cosine_L),
        "latents_active": predicted.latents,
        "novel": int(novel_L.sum()),
        "novel_lowering_share": share(novel_L & fired_L),
        "reconstruction_lowering_share": share(~novel_L & fired_L),
        "auroc": predicted.auroc,
        "best_threshold": predicted.best_threshold,
        "mse_small": stitching.mse,
        "nmse_small": way.nmse[0],
        "nmse_novel_in": way.nmse[paths.novel_in],
        "nmse_lowest_on_the_way": min(way.nmse[: paths.novel_in + 1]),
        "nmse_reconstruction_in": curves["reconstruction"].nmse[-1],
        "nmse_all_in": curves["random"].nmse[-1],
        "nmse_large": way.nmse[-1],
        "l0_small": way.l0[0],
        "l0_novel_in": way.l0[paths.novel_in],
        "l0_large": way.l0[-1],
    }


def _by_threshold(
    compared: Comparison, stitching: Stitching, by_cosine: Curve, thresholds: list[float]
) -> list[dict[str, Any]]:
    """What each threshold would make of the latents; NMSE and L0 with all that it calls novel put in."""
    cosine_L = compared.right.cosine
    rows = []
    for index, threshold in enumerate(thresholds, start=1):
        sizes = family_sizes(compared.families[threshold])
        true_rate, false_rate = rates(cosine_L, stitching.change_L, stitching.fired_L, threshold)
        swapped = [size for size in sizes if size["small"] and size["large"]]
        rows.append(
            {
                "threshold": threshold,
                "novel": int((cosine_L < threshold).sum()),
                "families": sum(size["count"] for size in swapped),
                "largest_family": max((size["small"] + size["large"] for size in swapped), default=0),
                "nmse_novel_in": by_cosine.nmse[index],
                "l0_novel_in": by_cosine.l0[index],
                "true_positive_rate": true_rate,
                "false_positive_rate": false_rate,
            }
        )
    return rows


def _thinned(predicted: Prediction, most: int = 500) -> dict[str, Any]:
    """The prediction with no more points of the ROC curve than a picture shows."""
    content = asdict(predicted)
    for name, value in content.items():
        if isinstance(value, list) and len(value) > most:
            content[name] = [value[place] for place in np.linspace(0, len(value) - 1, most).round().astype(int)]
    return content


def _tables(study: Study, compared: Comparison, stitching: Stitching, threshold: float) -> dict[str, np.ndarray]:
    """Write latents.parquet, of the large SAE, and small_latents.parquet. Returns the columns of the first."""
    families = compared.families[threshold]
    sides = {
        "small_latents": (compared.left, families.left, stitching.fired_S),
        "latents": (compared.right, families.right, stitching.fired_L),
    }
    columns: dict[str, np.ndarray] = {}
    for name, (matches, family, fired) in sides.items():
        columns = {
            "latent": np.arange(len(family), dtype=np.int32),
            "cosine": matches.cosine.cpu().numpy(),
            "nearest": matches.index.int().cpu().numpy(),
            "family": family.astype(np.int32),
            "frequency": (fired / stitching.seen).float().cpu().numpy(),
        }
        schema = SCHEMA
        if name == "latents":
            columns |= {"novel": columns["cosine"] < threshold, "mse_change": stitching.change_L.cpu().numpy()}
            schema = LARGE_SCHEMA
        write_table(study.folder / f"{name}.parquet", schema, [columns])
    return columns


def _track(
    study: Study, metrics: dict[str, Any], content: dict[str, Any], latents: dict[str, np.ndarray], pictures: list[Any]
) -> None:
    """The study's run in W&B: its curves, tables, histograms and figures."""
    run = study.start_run("position")
    curves = content["curves"]
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
    rows = content["thresholds"]
    run.table("thresholds", list(rows[0]), [list(row.values()) for row in rows])
    run.table("latents", list(latents), list(zip(*(column.tolist() for column in latents.values()), strict=True)))
    run.table("families", ["small", "large", "count"], [list(size.values()) for size in content["families"]])
    for picture in pictures:
        run.image(picture)
    run.finish(metrics)
