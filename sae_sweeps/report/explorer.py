"""Collects the data of the report's latent explorer: examples, nearest latents, stitching and meta-latents."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sae_sweeps.evaluation.ratios import divide
from sae_sweeps.report.blocks import Blocks, round_digits
from sae_sweeps.report.cards import CardSet, encode_cards
from sae_sweeps.report.finished import FinishedStudy, describe_differences, skip_unreadable
from sae_sweeps.report.page_saes import PageSAE, find_saes
from sae_sweeps.report.stability import add_stability
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.progress import OnProgress
from sae_sweeps.sweep.comparison import ComparedPoint
from sae_sweeps.sweep.labels import Label, read_labels

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MAX_SAES = 12  # largest number of SAEs with cards (descriptions of single latents)
# columns of a latents table on the cards; tables of version 0.2.0 do not have the last two
COLUMNS = ("frequency", "mean_activation", "max_activation", "examples", "promoted", "suppressed", "histogram")
MAX_MULTIPLICATIONS = 2e12  # limit for all searches of nearest latents: about half a minute on two cores


def build_explorer(
    blocks: Blocks,
    points: Mapping[str, tuple[str, ComparedPoint]],
    studies: Sequence[FinishedStudy],
    max_bytes: int,
    on_progress: OnProgress | None = None,
) -> dict[str, Any] | None:
    """Add the latents of up to MAX_SAES SAEs to `blocks` as compressed data of about `max_bytes` bytes.

    points: key of a point in the page -> (label, point)
    on_progress: called with (done, total), which count pairs of compared SAEs

    Returns the index that the page needs to show these latents; None if no study has examples of an SAE's latents.
    """
    ranked = sorted(find_saes(points, studies), key=lambda sae: (sae.find_latents_study(studies) is None, sae.nmse))
    if not ranked or ranked[0].find_latents_study(studies) is None:
        return None
    saes = ranked[:MAX_SAES]
    card_sets = [_sae_cards(sae, studies) for sae in saes]
    labels = {folder: read_labels(folder) for folder in dict.fromkeys(sae.sweep for sae in saes)}
    for sae, card_set in zip(saes, card_sets, strict=True):
        _add_labels(card_set, labels[sae.sweep].get(sae.point, {}))
    meta_studies = []
    for number, sae in enumerate(saes):
        for study in sae.find_studies(studies, "meta_sae"):
            with skip_unreadable(study.folder):
                card_sets.append(_meta_sae_cards(sae, study, studies))
                meta_studies.append((number, study))
    numbers = {card_set.key: number for number, card_set in enumerate(card_sets)}
    too_slow, unreadable = _add_nearest(saes, card_sets, on_progress)
    for sae, card_set in zip(saes, card_sets, strict=False):
        for study in sae.find_studies(studies, "stitch", "large"):
            if (small := numbers.get(sae.prefix + study.point("small"))) is not None:
                with skip_unreadable(study.folder):
                    _add_stitching(card_set, study, small)
        for study in studies:
            if study.task == "match" and study.sweep.folder == sae.sweep:
                with skip_unreadable(study.folder):
                    add_stability(card_set.facts, sae.point, study)
    for meta, (number, study) in enumerate(meta_studies, start=len(saes)):
        with skip_unreadable(study.folder):
            _add_decompositions(card_sets[number], study, meta)
    return {
        **encode_cards(blocks, card_sets, max_bytes),
        "without_cards": [sae.label for sae in ranked[MAX_SAES:]],
        "too_slow": too_slow,
        "unreadable": unreadable,
    }


def _sae_cards(sae: PageSAE, studies: Sequence[FinishedStudy]) -> CardSet:
    facts: list[dict[str, Any]] = [{} for _ in range(sae.dict_size)]
    card_set = CardSet(sae.key, sae.label, sae.folder, None, facts, sae.prefix)
    study = sae.find_latents_study(studies)
    if study is not None:
        with skip_unreadable(study.folder):
            rows = study.read_table("latents")
            if len(rows) == sae.dict_size:
                card_set.rows = rows.select([name for name in COLUMNS if name in rows.column_names])
                card_set.tokens = study.results["metrics"].get("activations")
    return card_set


def _add_labels(sae: CardSet, labels: Mapping[int, Label]) -> None:
    """Add to each latent of an SAE its label, if it has one: text, score and source."""
    for latent, label in labels.items():
        if latent < len(sae.facts):
            sae.facts[latent]["b"] = [label.text, round_digits(label.score, 3), label.source]


def _meta_sae_cards(sae: PageSAE, study: FinishedStudy, studies: Sequence[FinishedStudy]) -> CardSet:
    metrics, settings = study.results["metrics"], study.settings
    size = f"{metrics['meta_latents']} meta-latents, k {settings['k']}"
    rows = study.read_table("meta_latents")
    return CardSet(
        key=sae.prefix + study.folder.name,
        label=f"{size}, of {sae.label}{describe_differences(study, studies)}",
        folder=study.folder,
        rows=rows,
        facts=[{} for _ in range(len(rows))],
        prefix=sae.prefix,
        sae=sae.key,
        shuffled=metrics.get("explained_variance_shuffled"),
        tokens=metrics.get("activations"),
    )


def _add_nearest(
    saes: Sequence[PageSAE], card_sets: Sequence[CardSet], on_progress: OnProgress | None
) -> tuple[list[str], list[str]]:
    """Add to each latent the nearest latent (highest decoder cosine) in every other SAE of the same model and hook.

    card_sets: receives the result, under the key "n" of the facts per latent; the first sets are those of `saes`
    on_progress: called with (done, total), which count pairs of compared SAEs

    Returns the labels of SAEs that were not compared with all others because that would take too long, and the labels
    of SAEs with unreadable files.
    """
    from sae_sweeps.studies.directions import compare

    read = {number: _read_directions(sae) for number, sae in enumerate(saes)}
    directions = {number: found for number, found in read.items() if found is not None}
    pairs = [(i, j) for j in directions for i in directions if i < j and saes[i].space == saes[j].space]
    pairs = [(i, j) for i, j in pairs if directions[i].shape[1] == directions[j].shape[1]]
    budget, skipped = MAX_MULTIPLICATIONS, set()
    for done, (i, j) in enumerate(pairs):
        budget -= directions[i].numel() * len(directions[j])
        if budget < 0:
            skipped |= {i, j}
            continue
        compared = compare(directions[i], directions[j])
        for number, other, matches in ((i, j, compared.left), (j, i, compared.right)):
            nearest = zip(card_sets[number].facts, matches.index.tolist(), matches.cosine.tolist(), strict=False)
            for facts, latent, cosine in nearest:
                facts.setdefault("n", []).append([other, latent, round_digits(cosine, 3)])
        if on_progress is not None:
            on_progress(done + 1, len(pairs))
    unreadable = [saes[number].label for number in read if number not in directions]
    return [saes[number].label for number in sorted(skipped)], unreadable


def _read_directions(sae: PageSAE) -> "Tensor | None":
    """Return the decoder directions of an SAE, shape (latents, d_model); None if the files cannot be read."""
    from sae_sweeps.formats.reading import load_sae

    try:
        return load_sae(sae.folder).W_dec.detach()
    except (OSError, ValueError) as error:
        log.warning(
            "the SAE in %s cannot be read (%s); the report shows no nearest latents for it",
            sae.folder,
            first_line(error),
        )
        return None


def _add_stitching(large: CardSet, study: FinishedStudy, small: int) -> None:
    """Add to each latent of a large SAE the result of a stitching study: novel or not, and the change in MSE.

    small: number of the small SAE's card set. The change is relative to the MSE of the small SAE.
    """
    table = study.read_table("latents", ["novel", "mse_change"]).to_pydict()
    mse_small, threshold = study.results["metrics"]["mse_small"], study.settings["threshold"]
    for facts, novel, change in zip(large.facts, table["novel"], table["mse_change"], strict=True):
        facts.setdefault("s", []).append([small, int(novel), round_digits(divide(change, mse_small), 3), threshold])


def _add_decompositions(sae: CardSet, study: FinishedStudy, meta: int) -> None:
    """Add to each latent of an SAE the meta-latents with weights, and the explained variance of the decoder direction.

    meta: number of the meta-SAE's card set
    """
    table = study.read_table("latents", ["explained", "meta_latents"]).to_pydict()
    for facts, explained, parts in zip(sae.facts, table["explained"], table["meta_latents"], strict=True):
        if explained is not None:
            weights = [[part["meta_latent"], round_digits(part["weight"], 3)] for part in parts]
            facts.setdefault("d", []).append([meta, round_digits(explained, 3), weights])
