"""What the explorer tells of latents: what each means, its nearest latents in other SAEs, and its meta-latents."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from sae_sweeps.comparison import Compared, finite
from sae_sweeps.errors import first_line
from sae_sweeps.report.blocks import Blocks, rounded
from sae_sweeps.report.cards import Shelf, pack
from sae_sweeps.report.studies import finished
from sae_sweeps.saved import SAE_FOLDER

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SAES = 12  # that have cards
MULTIPLICATIONS = 2e12  # that finding nearest latents may take: some half a minute on two cores

Told = Callable[[int, int], None]


def explorer(
    blocks: Blocks, points: Mapping[str, tuple[str, Compared]], most: int, told: Told | None = None
) -> dict[str, Any] | None:
    """Add the cards of points (by key: label, point) in at most so many bytes. Returns what the page has to know of
    them, None if nothing tells what any latent means. `told` hears how far the search for nearest latents is."""
    saes, metas = _shelves(points)
    if all(shelf.rows is None for shelf in saes):
        return None
    left_out = [shelf.label for shelf in saes[SAES:]]
    saes = saes[:SAES]
    shelves = saes + [meta for meta in metas if meta.of in {shelf.key for shelf in saes}]
    numbers = {shelf.key: number for number, shelf in enumerate(shelves)}
    not_compared = _add_nearest(saes, told)
    for key, (_, point) in points.items():
        if key in numbers:
            _add_stitching(shelves[numbers[key]], point, numbers)
    for meta in shelves[len(saes) :]:
        _add_decompositions(saes[numbers[str(meta.of)]], meta, numbers[meta.key])
    return {
        **pack(blocks, shelves, most),
        "left_out": left_out,
        "not_compared": not_compared,
    }


def _shelves(points: Mapping[str, tuple[str, Compared]]) -> tuple[list[Shelf], list[Shelf]]:
    """The SAEs of all points that are done, those of which it is known what their latents mean first, of these the best
    NMSE first; and the meta-SAEs."""
    saes: list[tuple[bool, float, int, Shelf]] = []
    metas: list[Shelf] = []
    for key, (label, point) in points.items():
        if point.results is None:
            continue
        prefix = key.removesuffix(point.name)
        tables = [folder for folder, _ in _of(point, "latents")]
        for folder, found in _of(point, "meta_sae"):
            tables.insert(0, folder)
            settings = found["study"]["settings"]
            name = f"{found['metrics']['meta_latents']} meta-latents, k {settings['k']}, of {label}"
            name += f", meta.seed {settings['seed']}" * (settings["seed"] != 0)
            rows = pq.read_table(folder / "meta_latents.parquet")
            facts: list[dict[str, Any]] = [{} for _ in range(len(rows))]
            shuffled = found["metrics"]["explained_variance_shuffled"]
            metas.append(Shelf(prefix + folder.name, name, folder, rows, facts, prefix, key, shuffled))
        known = pq.read_table(tables[-1] / "latents.parquet") if tables else None
        facts = [{} for _ in range(point.config["dict_size"])]
        shelf = Shelf(key, label, point.sweep.folder / point.name / SAE_FOLDER, known, facts, prefix)
        saes.append((known is None, finite(point.metrics["nmse"]), len(saes), shelf))
    return [shelf for *_, shelf in sorted(saes, key=lambda entry: entry[:3])], metas


def _of(point: Compared, task: str) -> list[tuple[Path, dict[str, Any]]]:
    """The finished studies of a point's SAE alone."""
    found = finished(point.sweep, task)
    return [(folder, results) for folder, results in found if results["study"]["sae"]["point"] == point.name]


def _add_nearest(saes: Sequence[Shelf], told: Told | None) -> list[str]:
    """For each latent the nearest latent of every other SAE, by the cosine of their decoder directions. Returns the
    SAEs that were not compared with all others, for that would have taken too long or they cannot be read."""
    from sae_sweeps.studies.directions import compare

    read = {number: _directions(shelf) for number, shelf in enumerate(saes)}
    directions = {number: found for number, found in read.items() if found is not None}
    pairs = [(i, j) for j in directions for i in directions if i < j]
    pairs = [(i, j) for i, j in pairs if directions[i].shape[1] == directions[j].shape[1]]
    left, skipped = MULTIPLICATIONS, read.keys() - directions.keys()
    for done, (i, j) in enumerate(pairs):
        left -= directions[i].numel() * len(directions[j])
        if left < 0:
            skipped |= {i, j}
            continue
        found = compare(directions[i], directions[j])
        for mine, other, matches in ((i, j, found.left), (j, i, found.right)):
            nearest = zip(saes[mine].facts, matches.index.tolist(), matches.cosine.tolist(), strict=True)
            for facts, latent, cosine in nearest:
                facts.setdefault("n", []).append([other, latent, rounded(cosine, 3)])
        if told is not None:
            told(done + 1, len(pairs))
    return [saes[number].label for number in sorted(skipped)]


def _directions(shelf: Shelf) -> "Tensor | None":
    """The decoder directions of an SAE (latents, width), None if it cannot be read."""
    from safetensors import SafetensorError

    from sae_sweeps.formats.saelens import read_sae

    try:
        return read_sae(shelf.folder).W_dec.detach()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        log.warning("%s cannot be read (%s); the report goes on without it", shelf.folder, first_line(error))
        return None


def _add_stitching(large: Shelf, point: Compared, numbers: Mapping[str, int]) -> None:
    """Whether the latents of a large SAE are novel beside a small one, and what they do to its error."""
    for folder, results in finished(point.sweep, "stitch"):
        small = large.prefix + results["study"]["small"]["point"]
        if results["study"]["large"]["point"] != point.name or small not in numbers:
            continue
        table = pq.read_table(folder / "latents.parquet", columns=["novel", "mse_change"]).to_pydict()
        mse_small, threshold = results["metrics"]["mse_small"], results["study"]["settings"]["threshold"]
        for facts, novel, change in zip(large.facts, table["novel"], table["mse_change"], strict=True):
            facts.setdefault("s", []).append([numbers[small], int(novel), rounded(change / mse_small, 3), threshold])


def _add_decompositions(sae: Shelf, meta: Shelf, number: int) -> None:
    """Meta-latents and their weights, and how much of a direction they explain."""
    table = pq.read_table(meta.folder / "latents.parquet", columns=["explained", "meta_latents"]).to_pydict()
    for facts, explained, parts in zip(sae.facts, table["explained"], table["meta_latents"], strict=True):
        if explained is not None:
            weights = [[part["meta_latent"], rounded(part["weight"], 3)] for part in parts]
            facts.setdefault("d", []).append([number, rounded(explained, 3), weights])
