"""The families of similar latents whose swap alone changes a small SAE's error most, with what their latents mean."""

from collections.abc import Sequence
from typing import Any

from sae_sweeps.report.blocks import round_digits
from sae_sweeps.report.finished import FinishedStudy, skip_unreadable
from sae_sweeps.studies.quotes import quote_contexts

MOST_FAMILIES = 5  # families listed at either end
MOST_LATENTS = 4  # latents listed per side of a family
MOST_CONTEXTS = 3  # texts listed per latent


def list_swaps(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> list[dict[str, Any]]:
    """Return the active families of a stitching study whose swaps change the small SAE's MSE most, lowest first.

    studies: those in which the texts of latents are looked up, as far as `latents` or `meta_sae` studies have them

    Returns `change`, a fraction of the small SAE's MSE; `frequency`; and for `small` and `large` the number of
    `latents` and the first of them as `listed`, with `latent` and `contexts`.
    """
    if not (study.folder / "families.parquet").exists():  # studies of earlier versions have no swaps
        return []
    rows = [row for row in study.read_table("families").to_pylist() if row["frequency"] > 0]
    chosen = rows if len(rows) <= 2 * MOST_FAMILIES else [*rows[:MOST_FAMILIES], *rows[-MOST_FAMILIES:]]
    shown = {side: {latent for row in chosen for latent in row[side][:MOST_LATENTS]} for side in ("small", "large")}
    texts = {side: _read_contexts(study, side, latents, studies) for side, latents in shown.items()}
    mse = study.results["metrics"]["mse_small"]
    return [
        {
            "change": round_digits(row["mse_change"] / mse) if mse else None,
            "frequency": round_digits(row["frequency"]),
            **{side: _describe_side(row[side], texts[side]) for side in ("small", "large")},
        }
        for row in chosen
    ]


def _describe_side(latents: Sequence[int], contexts: dict[int, list[str]]) -> dict[str, Any]:
    listed = [{"latent": latent, "contexts": contexts.get(latent, [])} for latent in latents[:MOST_LATENTS]]
    return {"latents": len(latents), "listed": listed}


def _read_contexts(
    study: FinishedStudy, side: str, latents: set[int], studies: Sequence[FinishedStudy]
) -> dict[int, list[str]]:
    """Return the texts on which each of some latents of an SAE is most active; empty if no study has found them."""
    for other in studies:
        about = other.results["study"].get("sae")
        same_sweep = other.sweep.folder == study.sweep.folder
        if other.task in ("latents", "meta_sae") and same_sweep and about["point"] == study.point(side):
            with skip_unreadable(other.folder):
                rows = other.read_table("latents", ["latent", "examples"])
                wanted = [at for at, latent in enumerate(rows["latent"].to_pylist()) if latent in latents]
                return {
                    row["latent"]: quote_contexts(row["examples"], MOST_CONTEXTS)
                    for row in rows.take(wanted).to_pylist()
                }
    return {}
