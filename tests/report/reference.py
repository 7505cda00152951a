"""A slow reference for the explorer's cards, computed from the files of a sweep."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file
from torch import Tensor

Row = dict[str, Any]


def round_3(value: float) -> float:
    """Round to the digits of a card."""
    return float(f"{value:.3g}")


def find_studies(sweep: Path, task: str, point: str, role: str = "sae") -> list[Path]:
    """The folders of the studies in which a point has a role."""
    files = sorted(sweep.glob(f"{task}/*/results.json"))
    return [file.parent for file in files if json.loads(file.read_text())["study"][role]["point"] == point]


def rows(file: Path) -> list[Row]:
    return pq.read_table(file).to_pylist()


def example_on_card(example: Row) -> list[Any]:
    """An example with its text, and the activations on other tokens of it."""
    around = []
    for one in example.get("active") or []:
        is_before, is_after = one["stop"] <= len(example["before"]), one["start"] > len(example["before"])
        if is_before or is_after:
            around += [one["start"], one["stop"] - one["start"], float(f"{one['activation']:.2g}")]
    shown = [round_3(example["activation"]), [example["before"], example["token"], example["after"]]]
    return [*shown, around] if around else shown


def examples_card(row: Row) -> Row:
    """The fields of a card from a latents table; examples with their text."""
    more = {}
    if "suppressed" in row:
        more["q"] = [[one["token"], round_3(one["logit"])] for one in row["suppressed"]]
        if row["frequency"] > 0:
            width, counts = row["histogram"]["width"], row["histogram"]["counts"]
            merged = [a + b for a, b in zip(counts[::2], [*counts[1::2], 0], strict=False)]
            more["h"] = [width, counts] if len(counts) <= 16 else [2 * width, merged]
    return {
        **more,
        "f": round_3(row["frequency"]),
        "a": [round_3(row["mean_activation"]), round_3(row["max_activation"])],
        "e": [example_on_card(one) for one in row["examples"]],
        "p": [[one["token"], round_3(one["logit"])] for one in row["promoted"]],
    }


def directions(sweep: Path, point: str) -> Tensor:
    W_dec = load_file(sweep / point / "sae" / "sae_weights.safetensors")["W_dec"].double()
    return W_dec / W_dec.norm(dim=1, keepdim=True)


def sae_cards(sweep: Path, point: str, numbers: Mapping[str, int], prefix: str = "") -> list[Row]:
    """Cards without nearest latents. `numbers`: card set numbers by key."""
    tables = find_studies(sweep, "latents", point) or find_studies(sweep, "meta_sae", point)
    cards = [examples_card(row) for row in rows(tables[0] / "latents.parquet")]
    for folder in find_studies(sweep, "stitch", point, "large"):
        results = json.loads((folder / "results.json").read_text())
        small = numbers[prefix + results["study"]["small"]["point"]]
        for card, row in zip(cards, rows(folder / "latents.parquet"), strict=True):
            change = row["mse_change"] / results["metrics"]["mse_small"]
            card.setdefault("s", []).append(
                [small, int(row["novel"]), round_3(change), results["study"]["settings"]["threshold"]]
            )
    for folder in find_studies(sweep, "meta_sae", point):
        for card, row in zip(cards, rows(folder / "latents.parquet"), strict=True):
            if row["explained"] is not None:
                weights = [[one["meta_latent"], round_3(one["weight"])] for one in row["meta_latents"]]
                card.setdefault("d", []).append([numbers[prefix + folder.name], round_3(row["explained"]), weights])
    return cards


def meta_cards(folder: Path, numbers: Mapping[str, int], prefix: str = "") -> list[Row]:
    return [
        {
            **examples_card(row),
            "u": row["used_by"],
            "l": [[one["latent"], round_3(one["weight"])] for one in row["latents"]],
            "m": [[numbers[prefix + one["point"]], one["latent"], round_3(one["cosine"])] for one in row["matches"]],
        }
        for row in rows(folder / "meta_latents.parquet")
    ]
