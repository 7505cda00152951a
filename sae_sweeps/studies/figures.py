"""Figures of the stitching and meta-SAE studies, as PNG files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_sweeps.runtime.files import write_atomically
from sae_sweeps.runtime.seeds import mix_seed

Array = npt.NDArray[Any]

BLUE, ORANGE, GRAY, RED = "#2f6fb0", "#e08a1e", "#8a8a8a", "#b8383d"
SCATTERED = 20_000  # maximal number of dots in a scatter plot


@contextmanager
def _figure(file: Path, written: list[Path], title: str, panels: int = 1) -> Iterator[Any]:
    """Yield axes to draw on (a sequence of axes if `panels` > 1), then write the figure to `file` as PNG.

    written: list to which `file` is appended
    """
    figure = Figure(figsize=(6.2, 4.0 if panels == 1 else 2.3 * panels + 0.8), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=panels > 1)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.5)
        one.set_axisbelow(True)
    figure.suptitle(title, fontsize=9)
    yield axes
    with write_atomically(file) as partial:
        figure.savefig(partial, format="png", dpi=150)
    written.append(file)


def plot_stitching(
    folder: Path,
    name: str,
    threshold: float,
    latents: Mapping[str, Array],
    metrics: Mapping[str, Any],
    content: Mapping[str, Any],
) -> list[Path]:
    """Write the figures of a stitching study and return the paths of the PNG files.

    name: title of the figures
    threshold: cosine with the small SAE's latents below which a latent of the large SAE is novel
    latents: columns of latents.parquet, by name
    metrics, content: the metrics of results.json, and the other entries
    """
    written: list[Path] = []
    with _figure(folder / "cosines.png", written, name) as axes:
        _plot_cosines(axes, latents["cosine"], threshold)
    with _figure(folder / "mse_change.png", written, name) as axes:
        _plot_mse_changes(axes, latents, metrics, threshold)
    if metrics["auroc"] is not None:
        with _figure(folder / "roc.png", written, name) as axes:
            _plot_roc(axes, content["prediction"], metrics)
    with _figure(folder / "interpolation.png", written, name, panels=3) as axes:
        _plot_interpolation(axes, content["curves"])
    with _figure(folder / "insertion.png", written, name) as axes:
        _plot_insertion(axes, content["curves"])
    with _figure(folder / "families.png", written, f"{name}, cosine at least {threshold:g}") as axes:
        _plot_families(axes, content["families"])
    return written


def plot_meta_sae(
    folder: Path, name: str, metrics: Mapping[str, Any], content: Mapping[str, Any], cosines: Mapping[str, Array]
) -> list[Path]:
    """Write the figures of a meta-SAE study and return the paths of the PNG files.

    name: title of the figures
    metrics, content: the metrics of results.json, and the other entries
    cosines: by name of a smaller SAE, each meta-latent's largest cosine with a decoder direction of that SAE, (M,)
    """
    written: list[Path] = []
    with _figure(folder / "explained_variance.png", written, name) as axes:
        _plot_explained_variance(axes, metrics, content["smaller"])
    with _figure(folder / "meta_latents_per_latent.png", written, name) as axes:
        counts = content["meta_latents_per_latent"]
        axes.bar(range(len(counts)), counts, color=BLUE)
        axes.set(xlabel="meta-latents per latent", ylabel="number of latents")
    if cosines:
        with _figure(folder / "matches.png", written, name) as axes:
            for point, values in cosines.items():
                axes.hist(values, bins=60, range=(0, 1), histtype="step", linewidth=1.5, label=point)
            for one in content["smaller"].values():
                label = "mean for shuffled directions"
                axes.axvline(one["best_match_mean_of_random"], color=GRAY, linewidth=1, linestyle="--", label=label)
            axes.set(
                xlabel="largest cosine with a decoder direction of the smaller SAE", ylabel="number of meta-latents"
            )
            axes.legend(frameon=False, fontsize=8)
    return written


def _plot_explained_variance(axes: Axes, metrics: Mapping[str, Any], smaller: Mapping[str, Any]) -> None:
    bars = [
        ("meta-SAE", metrics["explained_variance"], BLUE),
        ("meta-SAE's\ndecoder,\nmatching\npursuit", metrics["explained_variance_pursuit"], BLUE),
        *(
            (f"decoder of\n{one['dict_size']} latents,\nmatching\npursuit", one["explained_variance"], ORANGE)
            for one in smaller.values()
        ),
        ("meta-SAE of\nshuffled\ndirections", metrics["explained_variance_shuffled"], GRAY),
    ]
    bars = [bar for bar in bars if bar[1] is not None]
    drawn = axes.bar([label for label, _, _ in bars], [value for _, value, _ in bars], color=[bar[2] for bar in bars])
    axes.bar_label(drawn, fmt="{:.1%}", fontsize=8)
    axes.set(ylabel="explained variance of the decoder directions", ylim=(0, 1))
    axes.tick_params(axis="x", labelsize=8)


def _to_array(values: Sequence[float | None]) -> Array:
    """Return numbers as an array, with NaN, which is not drawn, in place of None."""
    return np.array(values, dtype=float)


def _draw_threshold(axes: Axes, threshold: float, label: str) -> None:
    axes.axvline(threshold, color=RED, linewidth=1, linestyle="--", label=label)


def _plot_cosines(axes: Axes, cosines: Array, threshold: float) -> None:
    axes.hist(cosines, bins=80, range=(min(0.0, float(cosines.min())), 1.0), color=BLUE)
    _draw_threshold(axes, threshold, f"threshold {threshold:g}")
    axes.set(
        xlabel="largest cosine with a decoder direction of the small SAE", ylabel="number of latents of the large SAE"
    )
    axes.legend(frameon=False)


def _plot_mse_changes(axes: Axes, latents: Mapping[str, Array], metrics: Mapping[str, Any], threshold: float) -> None:
    active = latents["frequency"] > 0
    relative = latents["mse_change"][active] / (metrics["mse_small"] or np.nan)  # nothing to divide by: no dots
    cosine = latents["cosine"][active]
    shown = np.random.default_rng(mix_seed(0, "latents in the figure")).permutation(len(cosine))[:SCATTERED]
    lowers = relative[shown] < 0
    for mask, color, label in ((lowers, BLUE, "lowers the MSE"), (~lowers, ORANGE, "raises the MSE")):
        axes.scatter(cosine[shown][mask], relative[shown][mask], s=4, alpha=0.4, color=color, label=label, linewidths=0)
    _draw_threshold(axes, threshold, f"threshold {threshold:g}")
    if metrics["best_threshold"] is not None:
        label = f"best threshold {metrics['best_threshold']:.2f} (AUROC {metrics['auroc']:.3f})"
        axes.axvline(metrics["best_threshold"], color=GRAY, linewidth=1, linestyle=":", label=label)
    axes.axhline(0, color="black", linewidth=0.6)
    sizes = np.abs(relative[np.isfinite(relative)])
    axes.set_yscale("symlog", linthresh=max(1e-9, float(np.median(sizes)) if len(sizes) else 1e-9))
    axes.set(
        xlabel="largest cosine with a decoder direction of the small SAE",
        ylabel="change in MSE / MSE of the small SAE",
    )
    axes.legend(frameon=False, fontsize=8, markerscale=3)


def _plot_roc(axes: Axes, predicted: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    false_rate, true_rate = predicted["false_positive_rate"], predicted["true_positive_rate"]
    axes.plot([0, *false_rate], [0, *true_rate], color=BLUE, label=f"AUROC {metrics['auroc']:.3f}")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle="--")
    xlabel = "false positive rate (latents that raise the MSE)"
    ylabel = "true positive rate (latents that lower the MSE)"
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, loc="lower right")


def _plot_interpolation(axes: Sequence[Axes], curves: Mapping[str, Any]) -> None:
    curve, degradation = curves["interpolation"], curves["ce_degradation"]
    positions = range(len(curve["nmse"]))
    last = len(curve["nmse"]) - 1
    for one, values, label in (
        (axes[0], curve["nmse"], "NMSE"),
        (axes[1], curve["l0"], "L0, latents/token"),
    ):
        one.plot(positions, _to_array(values), color=BLUE, marker=".", markersize=4)
        one.set_ylabel(label)
    axes[2].plot(degradation["positions"], degradation["nats"], color=BLUE, marker=".", markersize=4)
    axes[2].set(ylabel="CE degradation, nats/token", xlabel="position, from the small SAE (0) to the large SAE")
    for one in axes:
        one.axvspan(0, curves["novel_in"], color=BLUE, alpha=0.07, linewidth=0)
        one.axvspan(curves["novel_in"], last - 1, color=ORANGE, alpha=0.08, linewidth=0)
        one.set_ylim(bottom=0)
    axes[0].text(curves["novel_in"] / 2, 0, "novel latents inserted", ha="center", va="bottom", fontsize=8)
    if last - 1 > curves["novel_in"]:
        middle = (curves["novel_in"] + last - 1) / 2
        axes[0].text(middle, 0, "families swapped", ha="center", va="bottom", fontsize=8)


def _plot_insertion(axes: Axes, curves: Mapping[str, Any]) -> None:
    small = curves["random"]["latents"][0]
    for name, color, label in (
        ("interpolation", BLUE, "novel latents, lowest cosine first"),
        ("random", GRAY, "random latents"),
        ("reconstruction", ORANGE, "reconstruction latents"),
    ):
        curve = curves[name]
        until = curves["novel_in"] + 1 if name == "interpolation" else None
        inserted = [latents - small for latents in curve["latents"][:until]]
        axes.plot(inserted, _to_array(curve["nmse"][:until]), color=color, marker=".", markersize=4, label=label)
    last = curves["interpolation"]["nmse"][-1]
    if last is not None:
        axes.axhline(last, color=RED, linewidth=1, linestyle="--", label="large SAE")
    axes.set(xlabel="latents of the large SAE inserted into the small SAE", ylabel="NMSE")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def _plot_families(axes: Axes, sizes: Sequence[Mapping[str, int]], most: int = 15) -> None:
    common = sorted(sizes, key=lambda size: -size["count"])[:most]
    labels = [f"{size['small']} : {size['large']}" for size in common]
    axes.bar(range(len(common)), [size["count"] for size in common], color=BLUE)
    axes.set_xticks(range(len(common)), labels, rotation=60, fontsize=7)
    axes.set_yscale("log")
    axes.set(xlabel="latents in the small SAE : in the large SAE", ylabel="number of families")
