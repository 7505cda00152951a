"""What the explorer tells of latents: what each means, its nearest latents in other SAEs, and its meta-latents."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sae_sweeps.report.blocks import Blocks, rounded
from sae_sweeps.report.cards import Shelf, pack
from sae_sweeps.report.sources import Source, sources
from sae_sweeps.report.studies import Finished, differs, without_it
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.sweep.comparison import ComparedPoint

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SAES = 12  # that have cards
COLUMNS = ("frequency", "mean_activation", "max_activation", "examples", "promoted")  # of a card
MULTIPLICATIONS = 2e12  # that finding nearest latents may take: some half a minute on two cores


def explorer(
    blocks: Blocks,
    points: Mapping[str, tuple[str, ComparedPoint]],
    found: Sequence[Finished],
    most: int,
    on_progress: OnProgress | None = None,
) -> dict[str, Any] | None:
    """Add the cards of SAEs in at most so many bytes. Returns what the page has to know of them, None if nothing tells
    what any latent means. `told` hears how far the search for nearest latents is."""
    everyone = sorted(sources(points, found), key=lambda one: (one.told_by(found) is None, one.nmse))
    if not everyone or everyone[0].told_by(found) is None:
        return None
    saes = everyone[:SAES]
    shelves = [_shelf(source, found) for source in saes]
    metas = [(number, study) for number, source in enumerate(saes) for study in source.studies(found, "meta_sae")]
    of_meta = []
    for number, study in metas:
        with without_it(study.folder):
            shelves.append(_meta_shelf(saes[number], study, found))
            of_meta.append((number, study))
    numbers = {shelf.key: number for number, shelf in enumerate(shelves)}
    slow, unread = _add_nearest(saes, shelves, on_progress)
    for source, shelf in zip(saes, shelves, strict=False):
        for study in source.studies(found, "stitch", "large"):
            if (small := numbers.get(source.prefix + study.point("small"))) is not None:
                with without_it(study.folder):
                    _add_stitching(shelf, study, small)
    for meta, (number, study) in enumerate(of_meta, start=len(saes)):
        with without_it(study.folder):
            _add_decompositions(shelves[number], study, meta)
    return {
        **pack(blocks, shelves, most),
        "left_out": [source.label for source in everyone[SAES:]],
        "slow": slow,
        "unread": unread,
    }


def _shelf(source: Source, found: Sequence[Finished]) -> Shelf:
    facts: list[dict[str, Any]] = [{} for _ in range(source.dict_size)]
    shelf = Shelf(source.key, source.label, source.folder, None, facts, source.prefix)
    study = source.told_by(found)
    if study is not None:
        with without_it(study.folder):
            rows = study.table("latents", COLUMNS)
            if len(rows) == source.dict_size:
                shelf.rows = rows
    return shelf


def _meta_shelf(source: Source, study: Finished, found: Sequence[Finished]) -> Shelf:
    metrics, settings = study.results["metrics"], study.settings
    name = f"{metrics['meta_latents']} meta-latents, k {settings['k']}, of {source.label}{differs(study, found)}"
    rows = study.table("meta_latents")
    facts: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    shuffled = metrics.get("explained_variance_shuffled")
    return Shelf(
        source.prefix + study.folder.name, name, study.folder, rows, facts, source.prefix, source.key, shuffled
    )


def _add_nearest(
    saes: Sequence[Source], shelves: Sequence[Shelf], on_progress: OnProgress | None
) -> tuple[list[str], list[str]]:
    """For each latent the nearest latent of every other SAE of the same model and hook, by the cosine of their decoder
    directions. Returns the SAEs that were not compared with all others, for that would have taken too long; and those
    that cannot be read."""
    from sae_sweeps.studies.directions import compare

    read = {number: _directions(source) for number, source in enumerate(saes)}
    directions = {number: found for number, found in read.items() if found is not None}
    pairs = [(i, j) for j in directions for i in directions if i < j and saes[i].space == saes[j].space]
    pairs = [(i, j) for i, j in pairs if directions[i].shape[1] == directions[j].shape[1]]
    left, skipped = MULTIPLICATIONS, set()
    for done, (i, j) in enumerate(pairs):
        left -= directions[i].numel() * len(directions[j])
        if left < 0:
            skipped |= {i, j}
            continue
        found = compare(directions[i], directions[j])
        for mine, other, matches in ((i, j, found.left), (j, i, found.right)):
            nearest = zip(shelves[mine].facts, matches.index.tolist(), matches.cosine.tolist(), strict=False)
            for facts, latent, cosine in nearest:
                facts.setdefault("n", []).append([other, latent, rounded(cosine, 3)])
        if on_progress is not None:
            on_progress(done + 1, len(pairs))
    unread = [saes[number].label for number in read if number not in directions]
    return [saes[number].label for number in sorted(skipped)], unread


def _directions(source: Source) -> "Tensor | None":
    """The decoder directions of an SAE (latents, width), None if it cannot be read."""
    from sae_sweeps.formats.reading import load_sae

    try:
        return load_sae(source.folder).W_dec.detach()
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); the report goes on without it", source.folder, first_line(error))
        return None


def _add_stitching(large: Shelf, study: Finished, small: int) -> None:
    """Whether the latents of a large SAE are novel beside a small one, and what they do to its error."""
    table = study.table("latents", ["novel", "mse_change"]).to_pydict()
    mse_small, threshold = study.results["metrics"]["mse_small"], study.settings["threshold"]
    for facts, novel, change in zip(large.facts, table["novel"], table["mse_change"], strict=True):
        facts.setdefault("s", []).append([small, int(novel), rounded(change / mse_small, 3), threshold])


def _add_decompositions(sae: Shelf, study: Finished, meta: int) -> None:
    """Meta-latents and their weights, and how much of a direction they explain."""
    table = study.table("latents", ["explained", "meta_latents"]).to_pydict()
    for facts, explained, parts in zip(sae.facts, table["explained"], table["meta_latents"], strict=True):
        if explained is not None:
            weights = [[part["meta_latent"], rounded(part["weight"], 3)] for part in parts]
            facts.setdefault("d", []).append([meta, rounded(explained, 3), weights])
