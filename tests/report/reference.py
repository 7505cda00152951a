"""The explorer's cards made slowly, from the files of a sweep, to hold the page's against."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file
from torch import Tensor

Row = dict[str, Any]


def near(value: float) -> float:
    return float(f"{value:.3g}")


def of_point(sweep: Path, task: str, point: str, part: str = "sae") -> list[Path]:
    """The studies of a point."""
    files = sorted(sweep.glob(f"{task}/*/results.json"))
    return [file.parent for file in files if json.loads(file.read_text())["study"][part]["point"] == point]


def rows(file: Path) -> list[Row]:
    return pq.read_table(file).to_pylist()


def meaning(row: Row) -> Row:
    """What a card tells of what a latent means; examples with their text."""
    return {
        "f": near(row["frequency"]),
        "a": [near(row["mean_activation"]), near(row["max_activation"])],
        "e": [[near(one["activation"]), [one["before"], one["token"], one["after"]]] for one in row["examples"]],
        "p": [[one["token"], near(one["logit"])] for one in row["promoted"]],
    }


def directions(sweep: Path, point: str) -> Tensor:
    W_dec = load_file(sweep / point / "sae" / "sae_weights.safetensors")["W_dec"].double()
    return W_dec / W_dec.norm(dim=1, keepdim=True)


def sae_cards(sweep: Path, point: str, numbers: Mapping[str, int], prefix: str = "") -> list[Row]:
    """All but the nearest latents: meanings, stitching, decompositions. `numbers` has the page's number of a key."""
    tables = of_point(sweep, "latents", point) or of_point(sweep, "meta_sae", point)
    cards = [meaning(row) for row in rows(tables[0] / "latents.parquet")]
    for folder in of_point(sweep, "stitch", point, "large"):
        results = json.loads((folder / "results.json").read_text())
        small = numbers[prefix + results["study"]["small"]["point"]]
        for card, row in zip(cards, rows(folder / "latents.parquet"), strict=True):
            change = row["mse_change"] / results["metrics"]["mse_small"]
            card.setdefault("s", []).append(
                [small, int(row["novel"]), near(change), results["study"]["settings"]["threshold"]]
            )
    for folder in of_point(sweep, "meta_sae", point):
        for card, row in zip(cards, rows(folder / "latents.parquet"), strict=True):
            if row["explained"] is not None:
                weights = [[one["meta_latent"], near(one["weight"])] for one in row["meta_latents"]]
                card.setdefault("d", []).append([numbers[prefix + folder.name], near(row["explained"]), weights])
    return cards


def meta_cards(folder: Path, numbers: Mapping[str, int], prefix: str = "") -> list[Row]:
    return [
        {
            **meaning(row),
            "u": row["used_by"],
            "l": [[one["latent"], near(one["weight"])] for one in row["latents"]],
            "m": [[numbers[prefix + one["point"]], one["latent"], near(one["cosine"])] for one in row["matches"]],
        }
        for row in rows(folder / "meta_latents.parquet")
    ]
