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


def examples_card(row: Row) -> Row:
    """The fields of a card from a latents table; examples with their text."""
    return {
        "f": round_3(row["frequency"]),
        "a": [round_3(row["mean_activation"]), round_3(row["max_activation"])],
        "e": [[round_3(one["activation"]), [one["before"], one["token"], one["after"]]] for one in row["examples"]],
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
