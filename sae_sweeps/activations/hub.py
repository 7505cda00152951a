"""Access to the Hugging Face hub with a short timeout: huggingface_hub retries for 20 s when there is no network."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from sae_sweeps.config.wheel_models import WHEEL_MODELS
from sae_sweeps.runtime.caches import is_writable
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError, first_line
from sae_sweeps.runtime.paths import find_relative_problem

TIMEOUT_SECONDS = 1.5  # wait for an answer until the hub counts as unreachable


def require_repository(setting: str, name: str, repo_type: str) -> None:
    """Check that the hub repository `name` is in the local cache or on the hub.

    `setting` is the setting that an error names; `repo_type` is "model" or "dataset".
    Raises: ConfigError if the hub does not have it; OutOfReachError if the hub cannot be reached or denies access, or
    if the local cache cannot take it.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    fix = "give a local path, or run once with access to the hub to fill the cache"
    try:
        hub.utils.validate_repo_id(name)
        cached = Path(hub.constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=repo_type) / "snapshots"
        if cached.is_dir():
            return
        require_cache(setting, name, Path(hub.constants.HF_HUB_CACHE))
        hub.HfApi().repo_info(name, repo_type=repo_type, timeout=TIMEOUT_SECONDS)
    except OutOfReachError:
        raise
    except HFValidationError:
        raise ConfigError(
            setting, name, "is neither a local path nor a valid hub name (NAME or OWNER/NAME)", fix
        ) from None
    except GatedRepoError:
        log_in = f"accept the terms on the page of the {repo_type} on the hub, and log in with `hf auth login`"
        raise OutOfReachError(setting, name, "is gated, and the hub denies you access", log_in) from None
    except RepositoryNotFoundError:
        log_in = f"check the name; if the {repo_type} is private, log in with `hf auth login`"
        raise ConfigError(setting, name, f"does not exist as a {repo_type} on the hub", log_in) from None
    except Exception as error:  # the client lets any exception of its transport through
        if repo_type == "model":
            fix += f"; without a hub: {' or '.join(f'model={name}' for name in WHEEL_MODELS)}"
        problem = "is not a local path, not in the local cache, and the hub cannot be reached"
        raise OutOfReachError(setting, name, f"{problem} ({type(error).__name__})", fix) from None


def require_cache(setting: str, name: str, folder: Path) -> None:
    """Check that the folder, where the hub's files are kept, can be written. Raises: OutOfReachError if it cannot be.

    `setting` and `name`: the setting that an error names, and its value
    """
    if not is_writable(folder):
        place = f"{folder}, which cannot be written" if folder.is_absolute() else "the home folder, and there is none"
        problem = f"comes from the hub, whose files are kept in {place} (HF_HOME sets another folder)"
        fix = "set the environment variable HF_HOME to a writable folder (export HF_HOME=/FOLDER), or give a local path"
        raise OutOfReachError(setting, name, problem, fix)


def require_dataset_cache(name: str) -> None:
    """Check that the library `datasets` can write the cache that it needs to read a data set of the hub.

    Raises: OutOfReachError if it cannot.
    """
    from huggingface_hub.constants import HF_HOME

    folder = os.environ.get("HF_DATASETS_CACHE") or os.path.join(HF_HOME, "datasets")
    require_cache("dataset.name", name, Path(os.path.expanduser(folder)))


@functools.cache
def unreachable_reason(setting: str, name: str, repo_type: str) -> str | None:
    """Return why a model or data set cannot be looked up on the hub: no network, or access denied; else None.

    The result is also None if the local cache has the repository, or if the hub answers that none has this name.
    The hub is asked once per name. The parameters are those of `require_repository`.
    """
    try:
        require_repository(setting, name, repo_type)
    except OutOfReachError as error:
        return error.problem
    except ConfigError:
        pass
    return None


def fetch_folder(repository: str, folder: str, files: Sequence[str]) -> Path:
    """Fetch those of `files` that exist in a folder of a model repository on the hub, and return the local copy's path.

    The config.json in the folder above is fetched as well.
    Raises: FileNotFoundError if the repository cannot be fetched, or `folder` is no path in it.
    """
    import huggingface_hub as hub

    if (problem := find_relative_problem(folder)) is not None:
        raise FileNotFoundError(f"there is no such folder here, and {repository} has no such one: {problem}")
    try:
        require_repository("", repository, "model")
        patterns = [f"{folder}/{name}" if folder else name for name in files]
        # sparsify stores the model's name in the folder above
        patterns += [str(Path(folder).parent / "config.json")] if folder else []
        return Path(hub.snapshot_download(repository, allow_patterns=patterns)) / folder
    except ConfigError as error:
        raise FileNotFoundError(f"there is no such folder here, and {repository} {error.problem}") from None
    except Exception as error:  # the client lets any exception of its transport through
        raise FileNotFoundError(f"{repository} could not be fetched from the hub ({first_line(error)})") from None
