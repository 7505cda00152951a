"""Trained SAEs on disk: the points of sweeps, and folders that someone names."""

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
from sae_sweeps.config.identity import result_settings
from sae_sweeps.config.saes import SAE_SCHEMAS, SAEConfig
from sae_sweeps.config.tasks import EXPORT_TASKS
from sae_sweeps.formats.layout import CONFIG, SAE_FOLDER, WEIGHTS
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import read_json, sha256
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.point import IDENTITY, Point

if TYPE_CHECKING:  # torch takes a second to import, and which SAEs there are can be told without it
    import torch

    from sae_sweeps.formats.description import Description
    from sae_sweeps.formats.reading import Located
    from sae_sweeps.saes import InferenceSAE


@dataclass(frozen=True)
class SavedSAE:
    """An SAE in `folder`, and the configuration that it was trained by."""

    name: str
    folder: Path
    config: Config
    run: str | None = None  # in W&B
    setting: str = "name"  # that named it
    format: str = "sae_lens"
    declared: "Description | None" = None  # what its files say, if it is no point's

    @property
    def title(self) -> str:
        """Its name without the hash of its settings."""
        return re.sub(r"(?<=.)-[0-9a-f]{8}$", "", self.name)

    @property
    def is_foreign(self) -> bool:
        """Whether another library has trained it."""
        return self.declared is not None and not self.declared.trained_here

    @property
    def located(self) -> "Located":
        from sae_sweeps.formats.reading import Located

        return Located(self.format, self.folder)

    def load(self, device: "torch.device") -> "InferenceSAE":
        """Raises: ConfigError if the files cannot be read, or do not hold a sound SAE."""
        try:
            return self.located.read().to(device)
        except ValueError as error:
            raise ConfigError(self.setting, str(self.folder), str(error), "name the folder of a trained SAE") from None

    def digest(self) -> str:
        """A checksum of its weights, and of all files if they are not of our making."""
        if not self.is_foreign:
            return _digest(self.folder / WEIGHTS)
        of_all = [repr(self.declared), *map(_digest, self.located.files)]
        return hashlib.sha256("".join(of_all).encode()).hexdigest()

    def described(self) -> dict[str, Any]:
        """As results tell of it; None what is not known of an SAE from elsewhere."""
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


def read_results(one: SavedSAE) -> dict[str, Any]:
    """What results.json says of an SAE's point; nothing of an SAE that is none's."""
    return _results_beside(one.folder)


def _results_beside(folder: Path) -> dict[str, Any]:
    results = read_json(folder.parent / point_state.RESULTS) if folder.name == SAE_FOLDER else None
    return results if isinstance(results, dict) and "point" in results else {}


def from_point(point: Point) -> SavedSAE:
    """The SAE of a finished point."""
    return SavedSAE(point.name, (point.folder / SAE_FOLDER).resolve(), point.config, _run(point.folder))


def find_saved_sae(path: str, setting: str, command: Config) -> SavedSAE:
    """The SAE that `path` names: that of a point, one that was copied elsewhere, or anyone's, here or on the hub (see
    `formats.reading`). If it is not a point's, architecture and size are its own, while model and text are those of the
    command.

    Raises: ConfigError, naming the setting, if there is none, or if it declares that it is of something else.
    """
    folder = Path(path).expanduser().resolve()
    if (folder / SAE_FOLDER / CONFIG).is_file():
        folder = folder / SAE_FOLDER
    if (results := _results_beside(folder)) and (folder / WEIGHTS).is_file():
        point = folder.parent
        return SavedSAE(point.name, folder, from_json(results["config"]), _run(point), setting)

    from sae_sweeps.formats.reading import locate

    example = f"{setting}=outputs/SWEEP/POINT, or FORMAT:FOLDER"
    try:
        located = locate(str(folder) if folder.is_dir() else path)
        declared = located.describe()
    except FileNotFoundError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise ConfigError(setting, path, said, example) from None
    except ValueError as error:
        raise ConfigError(setting, path, str(error), example) from None
    k, size = declared.k, declared.dict_size
    if k is not None and size is not None and not 0 < k <= size:
        raise ConfigError(setting, path, f"says that its k is {k}, of {size} latents", "check its configuration")
    if command.task.name not in EXPORT_TASKS:  # which need neither model nor text
        _require_fitting(setting, path, declared, command)
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


def _require_fitting(setting: str, path: str, declared: "Description", command: Config) -> None:
    """Raises: ConfigError if an SAE declares that it is of something else than the command is about."""
    model = command.model
    if declared.directions_of is not None:
        problem = "is a meta-SAE, of decoder directions and not of activations"
        raise ConfigError(setting, path, problem, "give an SAE of activations")
    if declared.model is not None and not is_same_model(declared.model, [model.name, *model.aliases]):
        problem = f"was trained on {declared.model}, and the command is about {model.name}"
        fix = f"model=..., the one that it is of, or if they are the same, 'model.aliases=[{declared.model}]'"
        raise ConfigError(setting, path, problem, fix)
    if declared.hook is not None and not declared.hook.endswith(WIDE_HOOKS):
        problem = f"was trained at {declared.hook}, whose activations are not to be had here"
        raise ConfigError(setting, path, problem, f"give an SAE of {', '.join(WIDE_HOOKS)}")
    if declared.hook is not None and not is_same_activation(declared.hook, model.hook):
        problem = f"was trained at {declared.hook}, and the command is about {model.hook}"
        raise ConfigError(setting, path, problem, f"model.hook={declared.hook}")
    if declared.d_in is not None and (wide := _width(model.name)) not in (None, declared.d_in):
        problem = f"is of activations {declared.d_in} wide, and those of {model.name} are {wide} wide"
        raise ConfigError(setting, path, problem, "model=..., the model that it was trained on")


def _width(model: str) -> int | None:
    """The width of a model's activations, None if nothing is known of it."""
    try:
        return read_model_info(model).d_model
    except ConfigError:
        return None  # which is told elsewhere


def saved_labels(saved: Sequence[SavedSAE]) -> list[str]:
    """What they are called among each other: by their titles, or by their names where those are not enough."""
    titles = [one.title for one in saved]
    return [one.title if titles.count(one.title) == 1 else one.name for one in saved]


def pair_neighbours(saved: Sequence[SavedSAE]) -> list[tuple[SavedSAE, SavedSAE]]:
    """All pairs, small and large, that differ in the dictionary size alone and have none of a size between them."""
    pairs = []
    for alike in group_by_settings(saved):
        ordered = sorted(alike, key=lambda one: one.config.dict_size)
        pairs += list(itertools.pairwise(ordered))
    return pairs


def group_by_settings(saved: Sequence[SavedSAE]) -> list[list[SavedSAE]]:
    """Those that differ in the dictionary size alone, together."""
    alike: dict[str, list[SavedSAE]] = {}
    for one in saved:
        values = result_settings(asdict(one.config))
        values.pop("dict_size")
        alike.setdefault(json.dumps(values, sort_keys=True), []).append(one)
    return list(alike.values())


def _digest(file: Path) -> str:
    return _sha256(file, file.stat().st_size, file.stat().st_mtime_ns)


@functools.cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Read once for all studies of an SAE."""
    return sha256(file)


def _run(point: Path) -> str | None:
    """The id of the point's run in W&B."""
    known = read_json(point / IDENTITY)
    return None if known is None else known["id"]
