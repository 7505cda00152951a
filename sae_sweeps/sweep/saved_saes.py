"""Trained SAEs on disk: the points of sweeps, and folders or hub repositories that a command names."""

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweeps.activations.hooks import WIDE_HOOKS, is_same_activation
from sae_sweeps.activations.model_info import is_same_model, read_model_info
from sae_sweeps.config import Config, from_json
from sae_sweeps.config.identity import select_result_settings
from sae_sweeps.config.saes import SAE_SCHEMAS, SAEConfig
from sae_sweeps.config.tasks import EXPORT_TASKS
from sae_sweeps.formats.layout import CONFIG, SAE_FOLDER, WEIGHTS
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import sha256
from sae_sweeps.runtime.records import read_record
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point import IDENTITY, Point

if TYPE_CHECKING:  # importing torch takes a second, and finding SAEs does not need it
    import torch

    from sae_sweeps.formats.description import Description
    from sae_sweeps.formats.reading import Located
    from sae_sweeps.saes import InferenceSAE


@dataclass(frozen=True)
class SavedSAE:
    """A trained SAE in `folder`, with its training configuration.

    name: name of the point, or a name made from the folder if the SAE is not from a point
    run: id of the W&B run that trained the SAE; None if there is none
    setting: setting of the command that names the SAE, for error messages
    declared: description read from the SAE's files; None for an SAE of a point
    """

    name: str
    folder: Path
    config: Config
    run: str | None = None
    setting: str = "name"
    format: str = "sae_lens"
    declared: "Description | None" = None

    @property
    def title(self) -> str:
        """Return the name of the SAE without the hash of the settings at the end."""
        return re.sub(r"(?<=.)-[0-9a-f]{8}$", "", self.name)

    @property
    def is_foreign(self) -> bool:
        """Return whether the SAE was trained by another library."""
        return self.declared is not None and not self.declared.trained_here

    @property
    def located(self) -> "Located":
        """Return the format and folder of the SAE as the package `formats` needs them for reading."""
        from sae_sweeps.formats.reading import Located

        return Located(self.format, self.folder)

    def load(self, device: "torch.device") -> "InferenceSAE":
        """Load the SAE onto a device. Raises: ConfigError if the files cannot be read or do not contain a valid SAE."""
        try:
            return self.located.read().to(device)
        except ValueError as error:
            raise ConfigError(self.setting, str(self.folder), str(error), "name the folder of a trained SAE") from None

    def digest(self) -> str:
        """Return the SHA-256 of the weights; for an SAE of another library, of its description and all files."""
        declared = self.declared
        if declared is None or declared.trained_here:
            return _digest(self.folder / WEIGHTS)
        parts = [declared.to_digest_text(), *map(_digest, self.located.files)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the entry that describes the SAE in the results.json of a study.

        Values are None if the files of another library do not contain them.
        """
        declared = self.declared
        return {
            "point": self.name,
            "folder": str(self.folder),
            "format": self.format,
            "architecture": self.config.sae.architecture,
            "dict_size": self.config.dict_size,
            "k": self.config.k if declared is None else declared.k,
            "seed": self.config.seed if declared is None else None,
            "wandb_run": self.run,
        }


def read_results(saved: SavedSAE) -> dict[str, Any]:
    """Return the content of results.json of the point that trained the SAE; empty if the SAE is not from a point."""
    return _read_point_results(saved.folder)


def _read_point_results(folder: Path) -> dict[str, Any]:
    """Return the content of results.json next to an SAE's folder; empty if the SAE is not from a point."""
    results = point_state.read_results(folder.parent) if folder.name == SAE_FOLDER else None
    return results if results is not None and "point" in results else {}


def from_point(point: Point) -> SavedSAE:
    """Return the trained SAE of a finished point."""
    return SavedSAE(point.name, (point.folder / SAE_FOLDER).resolve(), point.config, _run(point.folder))


def find_saved_sae(path: str, setting: str, command: Config) -> SavedSAE:
    """Find the SAE at `path`: in a point's folder, in any other folder, or on the hub (see `formats.reading`).

    An SAE from a point gets the configuration of the point. Any other SAE gets the configuration of the command, with
    architecture, dictionary size and k from the SAE's own files.

    setting: setting of the command that contains `path`, for error messages
    command: configuration of the command
    Raises: ConfigError if there is no SAE at `path`, or if its files declare another model, hook or width than the
    command uses.
    """
    folder = Path(path).expanduser().resolve()
    if (folder / SAE_FOLDER / CONFIG).is_file():
        folder = folder / SAE_FOLDER
    if (results := _read_point_results(folder)) and (folder / WEIGHTS).is_file():
        return _from_results(results, folder, path, setting)

    from sae_sweeps.formats.reading import locate

    example = f"{setting}=outputs/SWEEP/POINT, or FORMAT:FOLDER"
    try:
        located = locate(str(folder) if folder.is_dir() else path)
        declared = located.describe()
    except FileNotFoundError as error:
        problem = str(error).removeprefix(f"{path}: ")
        raise ConfigError(setting, path, problem, example) from None
    except ValueError as error:
        raise ConfigError(setting, path, str(error), example) from None
    k, size = declared.k, declared.dict_size
    if k is not None and size is not None and not 0 < k <= size:
        raise ConfigError(
            setting, path, f"declares k={k}, but has only {size} latents", "correct its configuration file"
        )
    if command.task.name not in EXPORT_TASKS:  # export tasks need neither the model nor the text
        _require_match(setting, path, declared, command)
    schema = SAE_SCHEMAS.get(declared.architecture, SAEConfig)
    config = replace(
        command,
        sae=schema(architecture=declared.architecture),
        dict_size=declared.dict_size or command.dict_size,
        k=declared.k or command.k,
    )
    name = located.folder.parent.name if located.folder.name == SAE_FOLDER else located.folder.name
    if not declared.trained_here:
        name = f"{declared.architecture}-{declared.dict_size}-{name}"
    return SavedSAE(name, located.folder, config, None, setting, located.format, declared)


def _from_results(results: dict[str, Any], folder: Path, path: str, setting: str) -> SavedSAE:
    """Return the SAE in `folder`, with the configuration in the point's results.json. Raises: ConfigError without one.

    path: the folder as the command names it, in the setting `setting`
    """
    point = folder.parent
    try:
        return SavedSAE(point.name, folder, from_json(results["config"]), _run(point), setting)
    except ValueError as error:
        problem = f"{point / point_state.RESULTS} is damaged: {error}"
        raise ConfigError(setting, path, problem, "rerun the point's command to write it again") from None


def _require_match(setting: str, path: str, declared: "Description", command: Config) -> None:
    """Check that the SAE at `path` was trained on the command's model, hook and activation width.

    Raises: ConfigError if one of them differs, or if the SAE is a meta-SAE (trained on decoder directions).
    """
    model = command.model
    if declared.directions_of is not None:
        problem = "is a meta-SAE, trained on decoder directions instead of activations"
        raise ConfigError(setting, path, problem, "name an SAE that was trained on activations")
    if declared.model is not None and not is_same_model(declared.model, [model.name, *model.aliases]):
        problem = f"was trained on {declared.model}, but the command uses {model.name}"
        fix = f"set model=... to its model, or add 'model.aliases=[{declared.model}]' if both are the same model"
        raise ConfigError(setting, path, problem, fix)
    if declared.hook is not None and not declared.hook.endswith(WIDE_HOOKS):
        problem = f"was trained at {declared.hook}, which is not supported"
        raise ConfigError(setting, path, problem, f"name an SAE of one of these hooks: {', '.join(WIDE_HOOKS)}")
    if declared.hook is not None and not is_same_activation(declared.hook, model.hook):
        problem = f"was trained at {declared.hook}, but the command uses {model.hook}"
        raise ConfigError(setting, path, problem, f"model.hook={declared.hook}")
    if declared.d_in is not None and (width := _width(model.name)) not in (None, declared.d_in):
        problem = f"takes activations of width {declared.d_in}, but the activations of {model.name} have width {width}"
        raise ConfigError(setting, path, problem, "set model=... to the model that it was trained on")


def _width(model: str) -> int | None:
    """Return the activation width (d_model) of a model; None if the model cannot be read."""
    try:
        return read_model_info(model).d_model
    except ConfigError:
        return None  # preflight reports the error of the model


def saved_labels(saved: Sequence[SavedSAE]) -> list[str]:
    """Return a distinct label for each SAE: the name without hash, or the full name if the short one is not unique."""
    titles = [sae.title for sae in saved]
    return [sae.title if titles.count(sae.title) == 1 else sae.name for sae in saved]


def pair_neighbours(saved: Sequence[SavedSAE]) -> list[tuple[SavedSAE, SavedSAE]]:
    """Return the (small, large) pairs of SAEs that differ only in dictionary size and are neighbours in size."""
    pairs = []
    for alike in group_by_settings(saved):
        ordered = sorted(alike, key=lambda sae: sae.config.dict_size)
        pairs += list(itertools.pairwise(ordered))
    return pairs


def group_by_settings(saved: Sequence[SavedSAE]) -> list[list[SavedSAE]]:
    """Group the SAEs that differ only in dictionary size."""
    alike: dict[str, list[SavedSAE]] = {}
    for sae in saved:
        values = select_result_settings(asdict(sae.config))
        values.pop("dict_size")
        alike.setdefault(json.dumps(values, sort_keys=True), []).append(sae)
    return list(alike.values())


def _digest(file: Path) -> str:
    return _sha256(file, file.stat().st_size, file.stat().st_mtime_ns)


@functools.cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Return the SHA-256 of a file, cached because every study of an SAE needs it.

    size, changed: bytes and modification time (ns); they make the cache miss if the file has changed
    """
    return sha256(file)


def _run(point: Path) -> str | None:
    """Return the id of the W&B run of the point in this folder; None if the point has no run."""
    identity = read_record(point / IDENTITY, {"id": str})
    return None if identity is None else identity["id"]
