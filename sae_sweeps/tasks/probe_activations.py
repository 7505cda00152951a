"""Activations of labelled texts, which all SAEs at a hook share, and the classifiers on the activations themselves.

outputs/<name>/probe/activations-<hash>/<set>.safetensors    the activations and classes of a data set's texts
outputs/<name>/probe/activations-<hash>/<set>.json           the classifier on them, and its placements (studies/auc.py)

Both are written once, read by the study of each SAE, and may be deleted. The hash is of the settings that they depend
on; a key in each file covers the model's weights and the data set's file as well.
"""

# T texts, n of them new, N of them to train on and M to test on, D model width

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae_sweeps.activations.labelled_texts import TextSet, read_set
from sae_sweeps.activations.last_tokens import encode_ends, read_last
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import cached_sha256, save_tensors, write_atomically
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.studies.auc import Array, Placements
from sae_sweeps.studies.probing import LEAST, Fitted, Split, fit

log = logging.getLogger(__name__)

FITTED = {"key": str, "accuracy": float, "f1": float, "strength": float, "positive": [float], "negative": [float]}


class LabelledActivations(NamedTuple):
    """The activations of a data set's texts at the hook, (T, D), and which texts are positive, bool (T,).

    cut: number of texts that are longer than what the model reads of them
    """

    acts_TD: Tensor
    is_positive_T: Array
    negative: str
    positive: str
    cut: int


class TextActivations:
    """The activations of data sets at one hook of a model: from files, or else read and written to files.

    A text that several data sets have is read once per process.
    """

    def __init__(self, source: ActivationSource, config: Config, settings: dict[str, Any], folder: Path) -> None:
        """Take the source of the model and of its hook.

        config: configuration of the source; settings: those of the study; folder: where the folder of the files is
        """
        self._source, self._settings = source, settings
        context = read_model_info(config.model.name).context
        self._most = min(settings["max_tokens"], context or settings["max_tokens"])
        self._bos = source.model.bos if config.dataset.prepend_bos else None
        model = select_stream_settings(config)["model"]
        given = [model, self._bos, self._most, settings["rows"], settings["seed"], source.device.type]
        self._folder = folder / f"activations-{_hash(given)[:8]}"
        hook = source.model.hook
        self._origin = [given, source.model.fingerprint, source.model.reader.describe(hook)]
        self._places: dict[bytes, tuple[str, int]] = {}  # of a text, by its checksum: a data set, and the text's number

    def get(self, name: str, file: Path, display: PointProgress) -> LabelledActivations:
        """Return the activations of a data set. Raises: ConfigError as `read_set` and `read_last` do."""
        if (stored := self._read(name, file)) is not None:
            return stored
        found = read_set(name, file, self._settings["rows"], LEAST)
        acts_TD, cut = self._compute(found, display)
        labelled = LabelledActivations(acts_TD, found.is_positive_T, found.negative, found.positive, cut)
        self._write(name, file, labelled)
        return labelled

    def fit(self, name: str, file: Path, found: LabelledActivations, split: Split) -> Fitted:
        """Return the classifier on the activations of a data set, with an L2 penalty."""
        if (stored := self._read_fitted(name, file)) is not None:
            return stored
        x_TD, is_positive_T = found.acts_TD.float().numpy(), found.is_positive_T
        train_N, test_M = split
        fitted = fit(
            x_TD[train_N], is_positive_T[train_N], x_TD[test_M], is_positive_T[test_M], "l2", self._settings["seed"]
        )
        self._write_fitted(name, file, fitted)
        return fitted

    def _write_fitted(self, name: str, file: Path, fitted: Fitted) -> None:
        numbers = {"accuracy": fitted.accuracy, "f1": fitted.f1, "strength": fitted.strength}
        places = {"positive": fitted.placements.positive_P.tolist(), "negative": fitted.placements.negative_N.tolist()}
        write_record(self._folder / f"{name}.json", {"key": self._key(file), **numbers, **places}, is_synced=False)

    def _read_fitted(self, name: str, file: Path) -> Fitted | None:
        """Return the classifier from a data set's file; None if there is no intact file of these settings."""
        path = self._folder / f"{name}.json"
        stored = read_record(path, FITTED, is_sealed=True)
        if stored is None:
            return None
        if stored["key"] != self._key(file):
            log.warning("%s is of another model or data set; the texts are classified again", path)
            return None
        placements = Placements(*(np.array(stored[part]) for part in ("positive", "negative")))
        return Fitted(placements, stored["accuracy"], stored["f1"], stored["strength"])

    def _write(self, name: str, file: Path, found: LabelledActivations) -> None:
        about = {"negative": found.negative, "positive": found.positive, "cut": found.cut}
        content = {"acts_TD": found.acts_TD, "is_positive_T": torch.from_numpy(found.is_positive_T)}
        metadata = {"key": self._key(file), "about": json.dumps(about)}
        metadata["sha256"] = _hash_content(content, metadata)
        with write_atomically(self._folder / f"{name}.safetensors", is_synced=False) as partial:
            save_tensors(content, partial, metadata)

    def _key(self, file: Path) -> str:
        return _hash([self._origin, cached_sha256(file)])

    def _read(self, name: str, file: Path) -> LabelledActivations | None:
        """Return the activations from a data set's file; None if there is no intact file of these settings."""
        path = self._folder / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
                content = {part: opened.get_tensor(part) for part in ("acts_TD", "is_positive_T")}
            if metadata["sha256"] != _hash_content(content, metadata):
                raise ValueError("its checksum does not match")
            if metadata["key"] != self._key(file):
                raise ValueError("it is of another model or data set")
            about = json.loads(metadata["about"])
            return LabelledActivations(content["acts_TD"], content["is_positive_T"].numpy(), **about)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is not used (%s); the model reads the texts again", path, first_line(error))
            return None

    def _compute(self, found: TextSet, display: PointProgress) -> tuple[Tensor, int]:
        """Return the activations of a data set (T, D), and how many texts were cut. Texts that are known are not read.

        Texts that another data set has, whose file is there, count as known.
        """
        ends, cut = encode_ends(self._source.model, found.texts, self._bos, self._most)
        keys = [hashlib.sha256(repr(end).encode()).digest() for end in ends]
        places = [self._places.setdefault(key, (found.name, text)) for text, key in enumerate(keys)]
        new = [text for text, place in enumerate(places) if place == (found.name, text)]
        others = self._load_others({name for name, _ in places} - {found.name})
        missing = [text for text, (name, _) in enumerate(places) if name != found.name and name not in others]
        read = [*new, *missing]
        acts_TD = torch.empty(0)
        if read:
            callback = progress_callback(display, f"texts of {found.name}")
            acts_nD = read_last(self._source.model, [ends[text] for text in read], callback)
            acts_TD = torch.empty(len(ends), acts_nD.shape[1], dtype=acts_nD.dtype)
            acts_TD[read] = acts_nD
        elif others:
            other_TD = next(iter(others.values()))
            acts_TD = torch.empty(len(ends), other_TD.shape[1], dtype=other_TD.dtype)
        for text, (name, place) in enumerate(places):
            if name in others:
                acts_TD[text] = others[name][place]
            elif name == found.name and place != text:
                acts_TD[text] = acts_TD[place]
        return acts_TD, cut

    def _load_others(self, names: set[str]) -> dict[str, Tensor]:
        """Return the activations of data sets that this process has written, if their files are still there."""
        found = {}
        for name in names:
            try:
                with safe_open(self._folder / f"{name}.safetensors", framework="pt") as opened:
                    found[name] = opened.get_tensor("acts_TD")
            except (OSError, SafetensorError):
                log.warning("%s.safetensors is gone from %s; its texts are read again", name, self._folder)
        return found


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _hash_content(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([metadata["key"], metadata["about"]]).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
