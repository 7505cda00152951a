"""Task `probe`: sparse probing. Texts are classified with a few latents, beside the activations themselves."""

# T texts, N of them to train on and M to test on, D model width, F latents

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sae_sweeps.activations.labelled_texts import find_probe_sets, read_set
from sae_sweeps.config import Config
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.files import cached_sha256
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.runtime.records import Shape, read_record, write_record
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.studies.auc import find_difference, find_interval
from sae_sweeps.studies.probe_means import summarise_sets, to_entry
from sae_sweeps.studies.probing import LEAST, Fitted, encode_sparsely, fit, rank_latents, split_texts, take_columns
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.probe_activations import LabelledActivations, TextActivations
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, plan_per_sae
from sae_sweeps.tracking.run import Run

log = logging.getLogger(__name__)

PARTIAL = "sets.json"  # file of the data sets that are done, in the folder of a study
NUMBERS = {"auc": float, "auc_low": float, "auc_high": float, "accuracy": float, "f1": float, "strength": float}
DIFFERENCE = {"difference": float, "difference_low": float, "difference_high": float}
ROW: Shape = {"name": str, "negative": str, "positive": str, "texts": int, "cut": int, "train": int, "test": int}
ROW |= {"activations": NUMBERS, "latents": [int], "ks": [{"k": int, **NUMBERS, **DIFFERENCE}]}


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return one study per SAE that the command selects, and one sentence on skipped points (empty if there are none).

    Raises: ConfigError if the SAE of `saved=` does not exist, if it was trained on no text, or if a data set is not
    there or cannot be used.
    """
    files = find_probe_sets(command.probe)
    content = hashlib.sha256("".join(map(cached_sha256, files.values())).encode()).hexdigest()
    settings = {**asdict(command.probe), "sets": [*files], "content": content}
    settings.pop("data")  # the content counts, wherever it is
    return plan_per_sae("probe", sweep, command, settings)


def run(sweep: Sweep, config: Config) -> list[str]:
    """Fit classifiers with each SAE that `config` selects, and log the means. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    files = find_probe_sets(config.probe)
    if config.probe.data is not None and not all(study.is_done() for study in studies):
        for name, file in files.items():
            read_set(name, file, config.probe.rows, LEAST)  # before a model is loaded
    return run_studies(studies, partial(_probe, files=files), skipped_reason)


def _probe(study: Study, display: PointProgress, files: dict[str, Path]) -> None:
    """Fit classifiers of all data sets with an SAE, those that are done left out, and write results.json."""
    source, settings, partial_file = study.load_source(), study.settings, study.folder / PARTIAL
    sae = study.load_sae("sae", source)
    activations = TextActivations(source, study.config, settings, study.folder.parent)
    rows: dict[str, Any] = (read_record(partial_file, {"rows": {str: ROW}}, is_sealed=True) or {"rows": {}})["rows"]
    if rows:
        log.info("%s: %d of %d data sets are done already", study.name, len(rows), len(files))
    for number, (name, file) in enumerate(files.items()):
        signals.raise_if_stopped()
        if name not in rows:
            found = activations.get(name, file, display)
            rows[name] = _probe_set(name, file, sae, activations, found, settings)
            write_record(partial_file, {"rows": rows}, is_synced=False)
        display.show_count(number + 1, len(files), "data sets")
    done = [rows[name] for name in files]
    metrics = summarise_sets(done, settings["ks"])
    study.write_results(metrics, sets=done)
    partial_file.unlink(missing_ok=True)
    log.info("%s: %s", study.name, describe_means(metrics, settings["ks"]))
    study.track("k", partial(_log_run, rows=done, metrics=metrics, ks=settings["ks"]), metrics)


def _probe_set(
    name: str,
    file: Path,
    sae: InferenceSAE,
    activations: TextActivations,
    found: LabelledActivations,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the row of a data set: classifiers on its texts' activations, and on k latents for each k."""
    is_positive_T, seed = found.is_positive_T, settings["seed"]
    split = split_texts(is_positive_T, seed)
    train_N, test_M = split
    latents_TF = encode_sparsely(sae, found.acts_TD)
    ranked_F = rank_latents(latents_TF[train_N].tocsc(), is_positive_T[train_N])
    features_TK = take_columns(latents_TF, ranked_F[: max(settings["ks"])])

    def fit_k(k: int) -> Fitted:
        train_NK, test_MK = features_TK[train_N, :k], features_TK[test_M, :k]
        return fit(train_NK, is_positive_T[train_N], test_MK, is_positive_T[test_M], settings["penalty"], seed)

    with _fitting(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
        future = threads.submit(activations.fit, name, file, found, split)
        fitted = list(threads.map(fit_k, settings["ks"]))
        reference = future.result()
    ks = [
        {"k": k, **_to_numbers(one), **to_entry("difference", find_difference(one.placements, reference.placements))}
        for k, one in zip(settings["ks"], fitted, strict=True)
    ]
    about = {"name": name, "negative": found.negative, "positive": found.positive, "texts": len(is_positive_T)}
    about |= {"cut": found.cut, "train": len(train_N), "test": len(test_M)}
    shown = ranked_F[: max(settings["ks"])].tolist()
    return {**about, "activations": _to_numbers(reference), "latents": shown, "ks": ks}


@contextmanager
def _fitting() -> Iterator[None]:
    """Keep fits to one thread each. Those that have not converged after their steps count, as in sae-probes."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _to_numbers(fitted: Fitted) -> dict[str, float]:
    interval = to_entry("auc", find_interval(fitted.placements))
    return {**interval, "accuracy": fitted.accuracy, "f1": fitted.f1, "strength": fitted.strength}


def describe_means(metrics: dict[str, Any], ks: Sequence[int]) -> str:
    """Return the main results in one line, for the log."""
    means = ", ".join(f"{metrics[f'auc_k{k}']:.3f} at k={k}" for k in ks)
    return f"mean AUC of {metrics['sets']} data sets {means}; of the activations {metrics['auc_activations']:.3f}"


def _log_run(run: Run, rows: Sequence[dict[str, Any]], metrics: dict[str, Any], ks: Sequence[int]) -> None:
    """Log the mean AUC by k, and the table of data sets, to a W&B run."""
    for k in ks:
        run.log({"k": k, "auc": metrics[f"auc_k{k}"], "auc_activations": metrics["auc_activations"]})
    titles = ["set", "texts", "auc_activations", *(f"auc_k{k}" for k in ks)]
    table = [[row["name"], row["texts"], row["activations"]["auc"], *(one["auc"] for one in row["ks"])] for row in rows]
    run.table("sets", titles, table)
