"""Trained SAEs on disk: the points of sweeps, and folders or hub repositories that a command names."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweeps.config import Config, from_json
from sae_sweeps.config.identity import apply_command_settings
from sae_sweeps.config.saes import SAE_SCHEMAS, SAEConfig
from sae_sweeps.config.tasks import EXPORT_TASKS
from sae_sweeps.formats.layout import CONFIG, SAE_FOLDER, WEIGHTS
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.files import cached_sha256
from sae_sweeps.runtime.paths import expand_folder, find_name_problem, shorten_name
from sae_sweeps.runtime.records import read_record
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.declared import list_remarks, require_match
from sae_sweeps.sweep.point import IDENTITY, Point, make_title
from sae_sweeps.sweep.result_files import CHANGED, find_changed

if TYPE_CHECKING:  # importing torch takes a second, and finding SAEs does not need it
    import torch

    from sae_sweeps.activations.source import Source
    from sae_sweeps.formats.description import Description
    from sae_sweeps.formats.reading import Located
    from sae_sweeps.saes import InferenceSAE

log = logging.getLogger(__name__)


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
        return make_title(self.name)

    @property
    def k(self) -> int | None:
        """Return the k that the SAE was trained with; None if the files of another library do not contain it."""
        return self.config.k if self.declared is None else self.declared.k

    @property
    def is_foreign(self) -> bool:
        """Return whether the SAE was trained by another library."""
        return self.declared is not None and not self.declared.trained_here

    @property
    def located(self) -> "Located":
        """Return the format and folder of the SAE as the package `formats` needs them for reading."""
        from sae_sweeps.formats.reading import Located

        return Located(self.format, self.folder)

    def configure(self, command: Config) -> Config:
        """Return the SAE's configuration with the text settings that a study's command line names.

        That of an SAE without a point is the command's already, but for what the SAE's files declare.
        """
        return apply_command_settings(self.config, command) if self.declared is None else self.config

    def load(self, device: "torch.device") -> "InferenceSAE":
        """Load the SAE onto a device. Raises: ConfigError if the files cannot be read or do not contain a valid SAE."""
        try:
            return self.located.read().to(device)
        except ValueError as error:
            fix = getattr(error, "fix", None) or "name the folder of a trained SAE"
            if self.declared is None:
                fix = f"remove {point_state.RESULTS} of the point and rerun the command that trained it"
            raise ConfigError(self.setting, str(self.folder), str(error), fix) from None

    def load_for(self, source: "Source", config: Config) -> "InferenceSAE":
        """Load the SAE to use it on activations of `source`, and log what `list_remarks` returns.

        config: configuration of the source
        Raises: ConfigError if the files cannot be read or do not contain a valid SAE.
        """
        sae = self.load(source.device)
        for remark in self.list_remarks(config):
            log.warning("%s: %s", self.name, remark)
        if sae.normalization == "center" and (source.model is None or not source.model.has_layer_norm):
            log.warning("%s: the model has no LayerNorm, so TransformerLens has not centred it either", self.name)
            sae.normalization = "none"
        return sae

    def list_remarks(self, config: Config) -> list[str]:
        """Return sentences on what the SAE's files leave open or declare otherwise than `config`, its configuration."""
        remarks = [] if self.declared is None else list_remarks(self.declared, config)
        return remarks + ([f"{', '.join(changed)} {CHANGED}"] if (changed := find_changed_files(self)) else [])

    def compute_checksums(self) -> dict[str, str]:
        """Return the SHA-256 of each of the SAE's files by its name."""
        return {file.name: cached_sha256(file) for file in self.located.files}

    def find_changed(self, described: Mapping[str, Any] | None) -> list[str]:
        """Return which of the SAE's files are not those of a study.

        described: what `describe` returned for the study; earlier versions gave no checksums, and no file is changed
        """
        return find_changed(self.folder, described or {})

    def digest(self) -> str:
        """Return the SHA-256 of the weights; for an SAE of another library, of its description and all files."""
        declared = self.declared
        if declared is None or declared.trained_here:
            return cached_sha256(self.folder / WEIGHTS)
        parts = [declared.to_digest_text(), *map(cached_sha256, self.located.files)]
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
            "k": self.k,
            "seed": self.config.seed if declared is None else None,
            "wandb_run": self.run,
            "files": self.compute_checksums(),
        }


def read_results(saved: SavedSAE) -> dict[str, Any]:
    """Return the content of results.json of the point that trained the SAE; empty if the SAE is not from a point.

    Empty as well, with a warning, if the SAE's files have changed since.
    """
    if changed := find_changed_files(saved):
        log.warning("%s: %s %s; its metrics are left out", saved.name, ", ".join(changed), CHANGED)
        return {}
    return _read_point_results(saved.folder)


def find_changed_files(saved: SavedSAE) -> list[str]:
    """Return which files of the SAE of a point or study are not those that the results.json there is about."""
    return [] if saved.is_foreign else find_changed(saved.folder.parent, _read_results_beside(saved.folder))


def _read_point_results(folder: Path) -> dict[str, Any]:
    """Return the content of results.json next to an SAE's folder; empty if the SAE is not from a point."""
    results = _read_results_beside(folder)
    return results if "point" in results else {}


def _read_results_beside(folder: Path) -> dict[str, Any]:
    """Return the content of results.json next to an SAE's folder; empty if it is not from a point or study."""
    return (point_state.read_results(folder.parent, is_copy=True) or {}) if folder.name == SAE_FOLDER else {}


def from_point(point: Point) -> SavedSAE:
    """Return the trained SAE of a finished point."""
    return SavedSAE(point.name, (point.folder / SAE_FOLDER).resolve(), point.config, _run(point.folder))


def _find_point(folder: Path, path: str, setting: str, command: Config) -> SavedSAE | None:
    """Return the SAE of a point in its own folder or the folder sae in it; None if there is no point.

    A point from elsewhere chooses no folder for a cache: the command does.
    Raises: ConfigError if a file cannot be read, or results.json holds no configuration.
    """
    try:
        if (folder / SAE_FOLDER / CONFIG).is_file():
            folder = folder / SAE_FOLDER
        results = _read_point_results(folder)
        if not results or not (folder / WEIGHTS).is_file():
            return None
        point, config = folder.parent, from_json(results["config"])
        if not folder.is_relative_to(Path(command.output_root).resolve()):
            config = replace(config, activations=command.activations)
        return SavedSAE(_require_name(point.name, path, setting), folder, config, _run(point), setting)
    except OSError as error:
        problem, fix = f"cannot be read ({error.strerror})", "ask the owner for permission to read it"
        raise ConfigError(setting, path, problem, fix) from None
    except (KeyError, TypeError, ValueError) as error:
        problem = f"the {point_state.RESULTS} of the point holds no configuration ({first_line(error)})"
        raise ConfigError(setting, path, problem, "name a copy of the folder sae alone") from None


def find_saved_sae(path: str, setting: str, command: Config) -> SavedSAE:
    """Find the SAE at `path`: in a point's folder, in any other folder, or on the hub (see `formats.reading`).

    An SAE from a point gets the configuration of the point. Any other SAE gets the configuration of the command, with
    architecture, dictionary size and k from the SAE's own files.

    setting: setting of the command that contains `path`, for error messages
    command: configuration of the command
    Raises: ConfigError if there is no SAE at `path`, or if its files declare another model, hook or width than the
    command uses.
    """
    folder = expand_folder(path, setting).resolve()
    if (found := _find_point(folder, path, setting, command)) is not None:
        return found

    located, declared = locate_sae(path, setting)
    k, size = declared.k, declared.dict_size
    if k is not None and size is not None and not 0 < k <= size:
        raise ConfigError(
            setting, path, f"declares k={k}, but has only {size} latents", "correct its configuration file"
        )
    if command.task.name not in EXPORT_TASKS:  # export tasks need neither the model nor the text
        require_match(setting, path, declared, command)
    schema = SAE_SCHEMAS.get(declared.architecture, SAEConfig)
    config = replace(
        command,
        sae=schema(architecture=declared.architecture),
        dict_size=declared.dict_size or command.dict_size,
        k=declared.k or command.k,
    )
    if declared.prepend_bos is not None and "dataset.prepend_bos" not in command.given:
        config = replace(config, dataset=replace(config.dataset, prepend_bos=declared.prepend_bos))
    is_inner = located.folder.name == SAE_FOLDER
    name = _require_name((located.folder.parent if is_inner else located.folder).name or "sae", path, setting)
    if not declared.trained_here:
        name = shorten_name(f"{declared.architecture}-{declared.dict_size}-{name}")
    return SavedSAE(name, located.folder, config, None, setting, located.format, declared)


def locate_sae(path: str, setting: str) -> "tuple[Located, Description]":
    """Return where the files of an SAE are, a folder or hub repository, and what they declare.

    Raises: ConfigError if there is no SAE at `path`, or its configuration cannot be read.
    """
    from sae_sweeps.formats.reading import locate

    folder, example = expand_folder(path, setting).resolve(), f"{setting}=outputs/SWEEP/POINT, or FORMAT:FOLDER"
    try:
        located = locate(str(folder) if folder.is_dir() else path)
        return located, located.describe()
    except FileNotFoundError as error:
        problem = str(error).removeprefix(f"{path}: ")
        raise ConfigError(setting, path, problem, example) from None
    except (ValueError, OSError) as error:
        raise ConfigError(setting, path, str(error), getattr(error, "fix", None) or example) from None


def _require_name(name: str, path: str, setting: str) -> str:
    """Return the name of an SAE's folder. Raises: ConfigError if folders of results cannot be named after it."""
    if (problem := find_name_problem(name)) is not None:
        raise ConfigError(setting, path, f"the name of the folder {problem}", "rename the folder")
    return name


def saved_labels(saved: Sequence[SavedSAE]) -> list[str]:
    """Return a distinct label for each SAE: the name without hash, or the full name if the short one is not unique."""
    titles = [sae.title for sae in saved]
    return [sae.title if titles.count(sae.title) == 1 else sae.name for sae in saved]


def _run(point: Path) -> str | None:
    """Return the id of the W&B run of the point in this folder; None if the point has no run."""
    identity = read_record(point / IDENTITY, {"id": str}, "")  # also in a copied folder
    return None if identity is None else identity["id"]
