"""Trained SAEs on disk: the points of sweeps, and folders that someone names."""

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweeps import states
from sae_sweeps.config import Config, deciding, from_json
from sae_sweeps.errors import ConfigError
from sae_sweeps.files import read_json, sha256
from sae_sweeps.formats import CONFIG, WEIGHTS
from sae_sweeps.packs import Point
from sae_sweeps.tracking import IDENTITY

if TYPE_CHECKING:  # torch takes a second to import, and which SAEs there are can be told without it
    import torch

    from sae_sweeps.saes import SAE

SAE_FOLDER = "sae"  # of a point
OF_DIRECTIONS = "decoder_directions_of"  # in the metadata of a meta-SAE


@dataclass(frozen=True)
class SavedSAE:
    """An SAE in `folder`, and the configuration that it was trained by."""

    name: str
    folder: Path
    config: Config
    run: str | None = None  # in W&B
    setting: str = "name"  # that named it

    @property
    def title(self) -> str:
        """Its name without the hash of its settings."""
        stem, _, last = self.name.rpartition("-")
        return stem if len(last) == 8 and stem else self.name

    def load(self, device: "torch.device") -> "SAE":
        """Raises: ConfigError if the files cannot be read."""
        from safetensors import SafetensorError

        from sae_sweeps.formats import saelens

        try:
            return saelens.read(self.folder).to(device)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            problem = f"cannot be read ({error})"
            raise ConfigError(self.setting, str(self.folder), problem, "name the folder of a trained SAE") from None

    def digest(self) -> str:
        """A checksum of its weights."""
        file = self.folder / WEIGHTS
        return _sha256(file, file.stat().st_size, file.stat().st_mtime_ns)

    def described(self) -> dict[str, Any]:
        """As results tell of it."""
        return {
            "point": self.name,
            "folder": str(self.folder),
            "architecture": self.config.sae.architecture,
            "dict_size": self.config.dict_size,
            "k": self.config.k,
            "seed": self.config.seed,
            "wandb_run": self.run,
        }


def of_point(point: Point) -> SavedSAE:
    """The SAE of a finished point."""
    return SavedSAE(point.name, (point.folder / SAE_FOLDER).resolve(), point.config, _run(point.folder))


def find(path: str, setting: str, command: Config) -> SavedSAE:
    """The SAE in a folder: that of a point, the `sae` folder in it, or one that was copied elsewhere. Of the latter the
    architecture and size are its own, while model and text are those of the command.

    Raises: ConfigError, naming the setting, if there is none.
    """
    folder = Path(path).expanduser().resolve()
    if (folder / SAE_FOLDER / CONFIG).is_file():
        folder = folder / SAE_FOLDER
    if not folder.is_dir():
        raise ConfigError(setting, path, "there is no such folder", f"{setting}=outputs/SWEEP/POINT")
    described = read_json(folder / CONFIG)
    if not isinstance(described, dict) or not (folder / WEIGHTS).is_file():
        problem = f"holds no SAE ({CONFIG} and {WEIGHTS}, there or in a folder {SAE_FOLDER})"
        raise ConfigError(setting, path, problem, f"{setting}=outputs/SWEEP/POINT")
    results = read_json(folder.parent / states.RESULTS) if folder.name == SAE_FOLDER else None
    if results is not None and "point" in results:
        point = folder.parent
        return SavedSAE(point.name, folder, from_json(results["config"]), _run(point), setting)
    metadata = described.get("metadata")
    origin = metadata.get("sae_sweeps") if isinstance(metadata, dict) else None
    if metadata is None or origin is None:
        problem = f"its {CONFIG} is not one that this project has written"
        raise ConfigError(setting, path, problem, "give an SAE that was trained or saved here")
    if OF_DIRECTIONS in metadata:
        problem = "is a meta-SAE, of decoder directions and not of activations"
        raise ConfigError(setting, path, problem, "give an SAE of activations")
    hook = metadata.get("hook_name", command.model.hook)
    if hook != command.model.hook:
        problem = f"was trained at {hook}, and the command is about {command.model.hook}"
        raise ConfigError(setting, path, problem, f"model.hook={hook}")
    sae = replace(command.sae, architecture=origin["architecture"])
    config = replace(command, sae=sae, dict_size=described["d_sae"], k=origin.get("k", command.k))
    name = folder.parent.name if folder.name == SAE_FOLDER else folder.name
    return SavedSAE(name, folder, config, None, setting)


def neighbours(saved: Sequence[SavedSAE]) -> list[tuple[SavedSAE, SavedSAE]]:
    """All pairs, small and large, that differ in the dictionary size alone and have none of a size between them."""
    pairs = []
    for alike in families(saved):
        ordered = sorted(alike, key=lambda one: one.config.dict_size)
        pairs += list(itertools.pairwise(ordered))
    return pairs


def families(saved: Sequence[SavedSAE]) -> list[list[SavedSAE]]:
    """Those that differ in the dictionary size alone, together."""
    alike: dict[str, list[SavedSAE]] = {}
    for one in saved:
        values = deciding(asdict(one.config))
        values.pop("dict_size")
        alike.setdefault(json.dumps(values, sort_keys=True), []).append(one)
    return list(alike.values())


@functools.cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Read once for all studies of an SAE."""
    return sha256(file)


def _run(point: Path) -> str | None:
    """The id of the point's run in W&B."""
    known = read_json(point / IDENTITY)
    return None if known is None else known["id"]
