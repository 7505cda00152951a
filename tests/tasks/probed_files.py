"""The files of a probe, written without a model, and what is read of each."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_sweeps.report import finished
from sae_sweeps.report.probing import list_probed, list_probed_sets
from sae_sweeps.runtime import records
from sae_sweeps.studies.auc import place
from sae_sweeps.studies.probe_means import summarise_sets
from sae_sweeps.studies.probing import Fitted
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.tasks.probe import ROW
from sae_sweeps.tasks.probe_activations import LabelledActivations, TextActivations


def stored_activations(folder: Path) -> TextActivations:
    """Return the reader of the activations that are in a folder."""
    stored = object.__new__(TextActivations)
    stored._folder, stored._origin = folder, ["of a model"]
    return stored


def read_probes(folder: Path, file: Path) -> Any:
    found = finished.find_finished(Sweep(folder))
    return [list_probed(found, {}), list_probed_sets(found, {})]


def read_probed_sets(folder: Path, file: Path) -> Any:
    return records.read_record(file, {"rows": {str: ROW}}, is_sealed=True)


def read_labelled(folder: Path, file: Path) -> Any:
    found = stored_activations(file.parent)._read(file.stem, folder.parent / f"{file.stem}.csv")
    return found and [found.acts_TD.tolist(), found.is_positive_T.tolist(), *found[2:]]


def read_fitted(folder: Path, file: Path) -> Any:
    found = stored_activations(file.parent)._read_fitted(file.stem, folder.parent / f"{file.stem}.csv")
    return found and [*map(list, vars(found.placements).values()), found.accuracy, found.f1, found.strength]


def make_probes(first: Path) -> None:
    """Write the files of two probed SAEs, one of which is not finished."""
    folder, ks = first / "probe" / "activations-1", (1, 4)
    score_M, is_positive_M = np.arange(6.0), np.arange(6) % 2 == 0
    for name in ("one", "two"):
        data = first.parent / f"{name}.csv"
        data.write_text(name)
        labelled = LabelledActivations(torch.arange(24).view(6, 4) / len(name), is_positive_M, "no", name, 2)
        stored_activations(folder)._write(name, data, labelled)
        fitted = Fitted(place(score_M, is_positive_M), 0.75, 0.5, float(len(data.stem) + ord(name[0])))
        stored_activations(folder)._write_fitted(name, data, fitted)
    numbers = {"auc": 0.8, "auc_low": 0.7, "auc_high": 0.9, "accuracy": 0.7, "f1": 0.6, "strength": 1.0}
    difference = {"difference": -0.1, "difference_low": -0.2, "difference_high": 0.1}
    row = {"negative": "no", "positive": "yes", "texts": 6, "cut": 0, "train": 3, "test": 2, "activations": numbers}
    row |= {"latents": [3, 1, 2], "ks": [{"k": k, **numbers, **difference} for k in ks]}
    rows = [{"name": name, **row} for name in ("one", "two")]
    for number, study in enumerate(sorted(first.glob("latents/*"))[:2]):
        results = point_state.read_results(study)
        target = first / "probe" / study.name
        settings = {"ks": [*ks], "number": number}
        about = {**results["study"], "task": "probe", "name": study.name, "settings": settings}
        content = {**results, "study": about, "metrics": summarise_sets(rows, ks), "sets": rows}
        point_state.write_results(target, content)
        records.write_record(target / "sets.json", {"rows": {str(number): rows[0]}})
