"""A cache of activations on disk, which several processes may share.

FOLDER/ab/abcdef....safetensors holds the activations of some sequences. The file is named by a hash of everything that
determines them: the tokens, the model's weights and configuration, the hook, the device and the library versions.
"""

# N sequences, S positions, D model width

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Size, Tensor, uint8

from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.files import save_tensors
from sae_sweeps.runtime.leftovers import remove_leftovers, temporary_path
from sae_sweeps.runtime.paths import expand_folder

log = logging.getLogger(__name__)

KEY = "key"  # in the metadata: the hash that names the file


class ActivationCache:
    """A cache of activations on disk, of at most `max_bytes`; the least recently used files are evicted first.

    The key of a file is the tokens, the hook and what it depends on, and `origin`.

    A process never evicts files that it has read or added itself: if the text is larger than the cache, a part of the
    text stays and is found in the next epoch, instead of every file being evicted before it is used again. A file is
    complete or absent, and a checksum detects damaged contents. If a file cannot be read or written, the model
    computes the activations: a full disk or a damaged file costs time, but does not stop the run.
    """

    def __init__(
        self,
        folder: str | Path,
        max_bytes: float,
        origin: dict[str, object],
        describe_hook: Callable[[str], dict[str, object]] | None = None,
    ) -> None:
        """Open the cache in `folder`, which is created with the first file.

        `origin`, a JSON object, is everything that determines activations besides the tokens and the hook: files of
        another origin are not used. `describe_hook` returns what is so at one hook alone.
        """
        self._folder = expand_folder(folder, "activations.cache")
        self._max_bytes = max_bytes
        self._origin, self._describe_hook = origin, describe_hook or (lambda hook: {})
        self._in_use: set[Path] = set()
        self.hits = self.misses = 0  # calls of `get` that found a file, and that did not

    def get(self, tokens_NS: Tensor, compute: Callable[[], Tensor], hook: str = "") -> Tensor:
        """Return the activations (N, S, D) of the sequences `tokens_NS` at a hook.

        The result comes from a file, on the CPU, or else from `compute()`; it is then also written to a file.
        """
        path = self._path(tokens_NS, hook)
        acts_NSD = _read(path, tokens_NS.shape)
        if acts_NSD is not None:
            self.hits += 1
            self._in_use.add(path)
            return acts_NSD
        self.misses += 1
        acts_NSD = compute()
        try:
            self._write(path, acts_NSD)
        except (OSError, SafetensorError) as error:
            log.warning(
                "activations.cache=%s: cannot write the activations (%s); training continues, but the model computes "
                "them again the next time they are needed",
                self._folder,
                first_line(error),
            )
        return acts_NSD

    def _path(self, tokens_NS: Tensor, hook: str) -> Path:
        origin = {**self._origin, **self._describe_hook(hook), "hook": hook}
        digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
        digest.update(str(tuple(tokens_NS.shape)).encode())
        digest.update(tokens_NS.cpu().contiguous().numpy().tobytes())
        name = digest.hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def _write(self, path: Path, acts_NSD: Tensor) -> None:
        acts_NSD = acts_NSD.detach().cpu().contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = temporary_path(path)
        try:
            save_tensors({"activations": acts_NSD}, partial, {KEY: path.stem, "sha256": _digest(acts_NSD)})
            with FileLock(self._folder / ".lock"):  # so that only one process at a time counts, evicts and adds files
                if self._make_room(partial.stat().st_size):
                    os.replace(partial, path)
                    self._in_use.add(path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> bool:
        """Evict the least recently used files until `size` more bytes fit, and return True.

        Files that this process uses stay. Returns False, and evicts none, if evicting all others is not enough.
        """
        remove_leftovers(self._folder)
        files = {file: file.stat() for file in self._folder.glob("*/*.safetensors")}
        excess = size + sum(status.st_size for status in files.values()) - self._max_bytes
        removable = sorted(files.keys() - self._in_use, key=lambda file: files[file].st_mtime)
        if excess > sum(files[file].st_size for file in removable):
            return False
        for file in removable:
            if excess <= 0:
                break
            file.unlink()
            excess -= files[file].st_size
        return True


def _read(path: Path, shape_NS: Size) -> Tensor | None:
    """Return the activations (N, S, D) in a file; None without a file, and with a warning if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            acts_NSD: Tensor = file.get_tensor("activations")
            metadata = file.metadata()
            if metadata["sha256"] != _digest(acts_NSD):
                raise SafetensorError("the checksum in the file does not match the activations")
            if metadata.get(KEY) != path.stem:
                raise SafetensorError("it does not name these tokens and this model")
            if acts_NSD.shape[:-1] != shape_NS or not acts_NSD.is_floating_point():
                raise SafetensorError("the file has another shape or type than the activations")
        with suppress(OSError):  # the file may belong to another user
            os.utime(path)  # marks the file as just used
        return acts_NSD
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged header can fail in any way
        log.warning(
            "activations.cache: the file %s is damaged (%s); the model computes the activations again, which is slower",
            path.name[:12],
            error,
        )
        return None


def _digest(acts_NSD: Tensor) -> str:
    return hashlib.sha256(acts_NSD.flatten().view(uint8).numpy().data).hexdigest()  # numpy has no bfloat16
