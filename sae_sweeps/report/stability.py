"""How stable latents are: whether SAEs of other seeds have one like it, from the studies of `task=match`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_sweeps.report.blocks import round_digits
from sae_sweeps.report.finished import FinishedStudy

SEEDS = ("seed", "dataset.seed")  # settings in which SAEs of one kind may differ
SIDES = (("left", "right"), ("right", "left"))


def add_stability(facts: Sequence[dict[str, Any]], point: str, study: FinishedStudy) -> None:
    """Add to each active latent of a point its mean cosine with the nearest latent of the SAEs that differ in a seed.

    facts: receive it under the key "t": [whether the SAEs have the same initialisation, mean cosine, number of SAEs]
    """
    pairs = [pair for pair in study.results["pairs"] if pair["differing"] in SEEDS]
    others = {pair[b]: pair["same_start"] for pair in pairs for a, b in SIDES if pair[a] == point}
    if not others:
        return
    table = study.read_table("latents", ["point", "latent", "other", "cosine"])
    names, latents, matched, cosines = (table[name].to_numpy(zero_copy_only=False) for name in table.column_names)
    for same_start in sorted(set(others.values())):
        chosen = [name for name, same in others.items() if same == same_start]
        is_chosen = (names == point) & np.isin(matched.astype(str), chosen)
        count_F = np.bincount(latents[is_chosen], minlength=len(facts))
        sum_F = np.bincount(latents[is_chosen], cosines[is_chosen], minlength=len(facts))
        for latent in count_F.nonzero()[0].tolist():
            mean = round_digits(sum_F[latent] / count_F[latent], 3)
            facts[latent].setdefault("t", []).append([int(same_start), mean, int(count_F[latent])])
